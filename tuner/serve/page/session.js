// What this tab was answered, kept over a reload: images and answers in the
// browser's IndexedDB under a number that the tab keeps in sessionStorage. A tab
// that was closed leaves its answers behind; they go when a page of this server is
// opened a day later. Where the browser allows no store, nothing is kept and
// nothing fails.
export const most = 24; // answers of a tab
const mostBytes = 64 << 20; // of their images
const lifetime = 24 * 60 * 60 * 1000;

let tab = null;
try {
  tab = sessionStorage.getItem("tab") || crypto.getRandomValues(new Uint32Array(2)).join("-");
  sessionStorage.setItem("tab", tab);
} catch { /* storage is switched off */ }

const opened = new Promise((done) => {
  try {
    const request = indexedDB.open("atelier", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("answers", { keyPath: "id", autoIncrement: true }).createIndex("tab", "tab");
    request.onsuccess = () => done(request.result);
    request.onerror = request.onblocked = () => done(null);
  } catch { done(null); }
});

// within runs f on the store; undefined where there is none or it fails.
async function within(mode, f) {
  const db = await opened;
  if (!db || !tab) return undefined;
  try {
    return await new Promise((done, failed) => {
      const t = db.transaction("answers", mode);
      let result;
      t.oncomplete = () => done(result && result.result);
      t.onerror = t.onabort = () => failed(t.error);
      result = f(t.objectStore("answers"));
    });
  } catch { return undefined; }
}

// load returns this tab's answers, the oldest first.
export async function load() {
  return await within("readonly", (s) => s.index("tab").getAll(tab)) || [];
}

// keep adds an answer; those beyond the limits go, the oldest first.
export async function keep(entry) {
  await within("readwrite", (s) => s.add({ ...entry, tab, at: Date.now() }));
  const all = await load();
  let bytes = 0;
  for (const x of all.reverse()) {
    bytes += x.file.size;
    if (all.indexOf(x) >= most || bytes > mostBytes) await within("readwrite", (s) => s.delete(x.id));
  }
}

// forget drops this tab's answers.
export async function forget() {
  for (const x of await load()) await within("readwrite", (s) => s.delete(x.id));
}

// purge drops answers that other tabs left behind.
export function purge() {
  return within("readwrite", (s) => {
    s.openCursor().onsuccess = (e) => {
      const c = e.target.result;
      if (!c) return;
      if (Date.now() - c.value.at > lifetime) c.delete();
      c.continue();
    };
  });
}
