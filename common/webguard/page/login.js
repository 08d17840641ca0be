// The code is behind # in the link, so no request had it before this one. It leaves
// the address and the history at once.
const here = location.pathname === "/login" ? "/" : location.pathname + location.search;

function taken() {
  const code = location.hash.slice(1);
  history.replaceState(null, "", location.pathname + location.search);
  return code;
}

function show(text) {
  document.getElementById("state").textContent = text;
  document.getElementById("how").hidden = false;
}

async function enter(code) {
  let refused = "You are not signed in.";
  if (code) {
    const answer = await fetch("/login", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ once: code }) });
    if (answer.ok) return true;
    const { error } = await answer.json().catch(() => ({}));
    refused = error ? "Not signed in: " + error + "." : `The server answered with ${answer.status}.`;
  }
  // A link of another site comes here without the session's cookie, and a link that was used may have been used
  // in this browser.
  if ((await fetch("/session")).ok) return true;
  show(refused);
  return false;
}

function start() {
  enter(taken()).then((ok) => { if (ok) location.replace(here); }, () => show("The server cannot be reached."));
}

// Another link, opened where this page is already, loads nothing.
addEventListener("hashchange", start);
start();
