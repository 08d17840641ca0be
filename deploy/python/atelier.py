"""A client of an Atelier cluster in one file: copy it beside your program.

It needs Python 3.7 or later and nothing else. Everything goes through the JSON
API of the coordinators, which are tried in turn until one answers for the
leader; each write carries an id, so that a call that is repeated after a lost
answer counts once.

    import atelier

    cluster = atelier.Cluster("10.0.0.1:7600,10.0.0.2:7600")   # or ATELIER_ADDR
    sweep = cluster.submit({
        "name": "mine", "search_method": "bayesian", "trainer": "external",
        "objective": {"metric": "loss", "direction": "minimize"},
        "budget": {"trials": 20}, "parallelism": 4,
        "space": {"lr": {"type": "float", "low": 1e-5, "high": 0.1, "log": True}},
    })
    for trial in sweep.ask_all():                # until the sweep has ended
        with trial:                              # an exception ends it as failed
            for epoch in range(trial.last_epoch + 1, 11):
                loss = train_one_epoch(**trial.params)
                if trial.tell(epoch, loss=loss) != "continue":
                    break                        # a stopping rule ends it here
    print(sweep.leaderboard(top=3))

Errors are atelier.Error, with a code ("not_found", "invalid_argument",
"unavailable" ...) and the coordinator's message.
"""
import http.client
import json
import math
import os
import socket
import time
import urllib.error
import urllib.request
import uuid

__all__ = ["Cluster", "Sweep", "Trial", "Error", "Unreachable", "LeaseLost"]

DEFAULT_ADDR = "127.0.0.1:7600"
POLL = 20.0  # seconds that a long poll waits at the coordinator


class Error(Exception):
    """The cluster refused a call; code is Connect's word for why."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Unreachable(Error):
    """No coordinator, or none that leads, answered in time."""


class LeaseLost(Error):
    """The trial is no longer this program's: its term was over without a tell, or
    it was cancelled. Stop training it; further reports do not count. A `with`
    block of the trial ends quietly with it, so that a loop takes the next one."""


def _json_number(x):
    """JSON has no NaN and no infinity; the API takes them as strings."""
    x = float(x)
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "Infinity" if x > 0 else "-Infinity"
    return x


def _word(name, kind):
    """'SWEEP_STATUS_RUNNING' of the API is 'running'."""
    prefix = kind + "_"
    return name[len(prefix):].lower() if name and name.startswith(prefix) else ""


class Cluster:
    """The coordinators at addresses, "host:port[,host:port]" or a list; without
    them those of the environment variable ATELIER_ADDR, else of this machine.

    A call is repeated for retry_for seconds while no leader answers."""

    def __init__(self, addresses=None, retry_for=60.0):
        if addresses is None:
            addresses = os.environ.get("ATELIER_ADDR") or DEFAULT_ADDR
        if isinstance(addresses, str):
            addresses = [a.strip() for a in addresses.split(",") if a.strip()]
        if not addresses:
            raise ValueError("no address of a coordinator; give host:port")
        self.addresses = [a if "://" in a else "http://" + a for a in addresses]
        self.retry_for = retry_for

    def call(self, method, request, wait=0.0):
        """One call of the API, such as call("SweepService/GetSweep", {"id": ...}).
        wait is how long the coordinator itself may hold the answer, seconds."""
        body = json.dumps(request, allow_nan=False).encode()
        deadline = time.monotonic() + self.retry_for
        pause = 0.05
        while True:
            found = []
            for at, base in enumerate(self.addresses):
                req = urllib.request.Request(base + "/atelier.v1." + method, data=body, headers={"Content-Type": "application/json"})
                try:
                    with urllib.request.urlopen(req, timeout=10 + wait) as answer:
                        got = json.load(answer)
                    self.addresses.insert(0, self.addresses.pop(at))  # it knows the leader
                    return got
                except urllib.error.HTTPError as e:
                    code, message = self._refusal(e)
                    if code not in ("unavailable", "deadline_exceeded"):
                        raise Error(code, message) from None
                    found.append("%s: %s" % (base, message))
                except (OSError, ValueError, http.client.HTTPException) as e:  # refused, reset, timed out, or cut off in mid-answer
                    found.append("%s: %s" % (base, getattr(e, "reason", None) or e))
            if time.monotonic() >= deadline:
                raise Unreachable("unavailable", "no coordinator answered for %g s: %s" % (self.retry_for, "; ".join(found)))
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    @staticmethod
    def _refusal(e):
        try:
            answer = json.loads(e.read().decode("utf-8", "replace"))
            return answer.get("code", "unknown"), answer.get("message", str(e))
        except (ValueError, OSError, AttributeError):
            return ("unavailable" if e.code >= 500 else "unknown"), str(e)

    def submit(self, spec, base_dir=None):
        """Submits a sweep: the path of a YAML file, its text, or a dict with the
        same keys (deploy/docs/spec.md). Relative folders of images in it start at
        base_dir, by default the working folder."""
        name = "spec"
        if isinstance(spec, dict):
            text = json.dumps(spec)  # JSON is YAML
        elif "\n" in spec:
            text = spec
        else:
            name = os.path.basename(spec)
            with open(spec, encoding="utf-8") as f:
                text = f.read()
        got = self.call("SweepService/CreateSweep", {
            "requestId": str(uuid.uuid4()), "specYaml": text, "specName": name, "baseDir": os.path.abspath(base_dir or ".")})
        return Sweep(self, got["sweep"])

    def sweep(self, id):
        """The sweep with an id."""
        return Sweep(self, self.call("SweepService/GetSweep", {"id": id})["sweep"])

    def sweeps(self, limit=0):
        """All sweeps, the newest first."""
        return [Sweep(self, s) for s in self.call("SweepService/ListSweeps", {"limit": limit}).get("sweeps", [])]


class Sweep:
    """A sweep; record is the API's newest answer about it, as JSON."""

    def __init__(self, cluster, record):
        self.cluster = cluster
        self.record = record

    def __repr__(self):
        return "<Sweep %s %s: %s>" % (self.id, self.name, self.state)

    @property
    def id(self):
        return self.record["id"]

    @property
    def name(self):
        return self.record.get("name", "")

    @property
    def state(self):
        """running, paused, stopping, finished, stopped, cancelled or failed."""
        return _word(self.record.get("status"), "SWEEP_STATUS")

    @property
    def ended(self):
        return self.state in ("finished", "stopped", "cancelled", "failed")

    @property
    def failure(self):
        """Why it failed; empty unless it did."""
        return self.record.get("failure", "")

    def refresh(self):
        """Asks for the sweep as it is now; returns self."""
        self.record = self.cluster.call("SweepService/GetSweep", {"id": self.id})["sweep"]
        return self

    def wait(self, timeout=None, on_change=None):
        """Waits for the end; calls on_change(sweep) at each change. Returns self;
        raises TimeoutError after timeout seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        index = 0
        while True:
            left = POLL if end is None else max(0.0, min(POLL, end - time.monotonic()))
            got = self.cluster.call("SweepService/WaitSweep", {
                "id": self.id, "afterIndex": str(index), "waitMs": str(int(1000 * left)), "restMs": "500"}, wait=left)
            self.record = got["sweep"]
            changed, index = int(got.get("index", 0)) != index, int(got.get("index", 0))
            if changed and on_change:
                on_change(self)
            if self.ended:
                return self
            if end is not None and time.monotonic() >= end:
                raise TimeoutError("sweep %s is still %s after %g s" % (self.id, self.state, timeout))

    def _control(self, action):
        self.record = self.cluster.call("SweepService/ControlSweep", {
            "requestId": str(uuid.uuid4()), "id": self.id, "action": "SWEEP_ACTION_" + action})["sweep"]
        return self

    def pause(self):
        """Starts no new trials; running ones finish."""
        return self._control("PAUSE")

    def resume(self):
        return self._control("RESUME")

    def stop(self):
        """Ends the sweep and keeps its results."""
        return self._control("STOP")

    def cancel(self):
        """Ends the sweep now; unfinished trials are discarded."""
        return self._control("CANCEL")

    def enqueue(self, *points):
        """Queues points, dicts with a value for every active parameter, to be tried next."""
        self.record = self.cluster.call("SweepService/EnqueueTrials", {
            "requestId": str(uuid.uuid4()), "id": self.id, "paramsJson": [json.dumps(p) for p in points]})["sweep"]
        return self

    def leaderboard(self, top=0):
        """The best trials first: dicts with rank, trial, state, value, epoch,
        params and checkpoint."""
        rows = self.cluster.call("SweepService/GetLeaderboard", {"id": self.id, "top": top}).get("rows", [])
        return [{"rank": int(r.get("rank", 0)), "trial": int(r.get("trial", 0)), "state": _word(r.get("status"), "TRIAL_STATUS"),
                 "value": float(r.get("value", 0)), "epoch": r.get("epoch", 0), "params": json.loads(r.get("paramsJson") or "{}"),
                 "checkpoint": r.get("checkpoint", "")} for r in rows]

    def trials(self):
        """All trials by number: dicts with trial, state, params, value (None before
        the first), epoch and failure."""
        out, after = [], 0
        while True:
            page = self.cluster.call("TrialService/ListTrials", {"sweepId": self.id, "after": str(after), "limit": 500}).get("trials", [])
            if not page:
                return out
            for t in page:
                after = int(t["number"])
                out.append({"trial": after, "state": _word(t.get("status"), "TRIAL_STATUS"), "params": json.loads(t.get("paramsJson") or "{}"),
                            "value": float(t.get("value", 0)) if t.get("hasValue") else None, "epoch": t.get("epoch", 0),
                            "failure": t.get("failure", "")})

    def curve(self, trial):
        """What a trial reported: a dict of metrics with epoch, for each epoch."""
        reports = self.cluster.call("TrialService/GetCurve", {"sweepId": self.id, "trial": str(trial)}).get("reports", [])
        return [dict({m["name"]: float(m.get("value", 0)) for m in r.get("metrics", [])}, epoch=r.get("epoch", 0)) for r in reports]

    def ask(self, wait=60.0, term=600.0, name=None):
        """Takes the next trial of a sweep with `trainer: external`, waiting for one;
        None where there was none in time, or the sweep has ended (see ended). The
        trial is yours for term seconds, and again from each tell."""
        end = time.monotonic() + wait
        request = {"requestId": str(uuid.uuid4()), "sweepId": self.id, "termMs": str(int(1000 * term)),
                   "name": name or "%s.%d" % (socket.gethostname(), os.getpid())}
        while True:
            left = max(0.0, min(POLL, end - time.monotonic()))
            got = self.cluster.call("TrialService/AskTrial", dict(request, waitMs=str(int(1000 * left))), wait=left)
            self.record["status"] = got.get("status", self.record.get("status"))
            if "lease" in got:
                return Trial(self, got["lease"])
            if self.ended or time.monotonic() >= end:
                return None

    def ask_all(self, term=600.0, name=None):
        """Takes trials, one after the other, until the sweep has ended."""
        while not self.ended:
            trial = self.ask(term=term, name=name)
            if trial is not None:
                yield trial


class Trial:
    """One trial that is yours to train. As a context manager it ends itself:
    finished, as the last verdict asked, or failed by the exception that left the block."""

    def __init__(self, sweep, lease):
        self.sweep = sweep
        self.number = int(lease["trial"])
        self.token = lease["token"]
        self.params = json.loads(lease.get("paramsJson") or "{}")
        self.training = json.loads(lease.get("trainingJson") or "{}")
        self.seed = int(lease.get("seed", 0))
        self.objective = lease.get("objective", {}).get("metric", "")
        self.last_epoch = lease.get("lastEpoch", 0)  # reported by an earlier run of this trial
        self.end_epoch = lease.get("endEpoch", 0)    # the last one to train, where it is not 0
        self.verdict, self.reason = "continue", ""
        self.ended = False

    def __repr__(self):
        return "<Trial %s/%d %s>" % (self.sweep.id, self.number, self.params)

    def _tell(self, request):
        try:
            got = self.sweep.cluster.call("TrialService/TellTrial", dict(
                request, sweepId=self.sweep.id, trial=str(self.number), token=self.token))
        except Error as e:
            if e.code != "failed_precondition":
                raise
            self.ended = True
            raise LeaseLost(e.code, str(e)) from None
        self.verdict, self.reason = _word(got.get("verdict"), "VERDICT") or "continue", got.get("reason", "")
        return self.verdict

    def tell(self, epoch, value=None, **metrics):
        """Reports an epoch (from 1): value is the objective, the others by name.
        Returns "continue", "stop" or "pause"; after the latter two end soon. The
        same epoch counts once."""
        if value is not None:
            metrics.setdefault(self.objective, value)
        if self.objective not in metrics:
            raise ValueError("the report lacks the objective %s; it has %s" % (self.objective, ", ".join(sorted(metrics)) or "nothing"))
        return self._tell({"report": {"epoch": epoch, "timeMs": str(int(1000 * time.time())),
                                      "metrics": [{"name": k, "value": _json_number(v)} for k, v in metrics.items()]}})

    def renew(self):
        """Renews the lease without a report."""
        return self._tell({})

    def _end(self, exit, message=""):
        if not self.ended:
            self.ended = True
            self._tell({"ended": {"exit": "EXIT_CLASS_" + exit.upper(), "message": message[:4000], "timeMs": str(int(1000 * time.time()))}})

    def done(self):
        """Trained to its end."""
        self._end("finished")

    def stopped(self):
        """Obeyed a stop verdict."""
        self._end("stopped")

    def paused(self):
        """Obeyed a pause verdict; the trial may continue later, from its last epoch."""
        self._end("paused")

    def failed(self, message, exit="crashed"):
        """Failed; exit is crashed, out_of_memory, bad_spec, data_missing, diverged ..."""
        self._end(exit, message)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.ended:
            return kind is LeaseLost
        try:
            if kind is None:
                self._end({"stop": "stopped", "pause": "paused"}.get(self.verdict, "finished"))
            else:
                exit = "out_of_memory" if kind is MemoryError else "killed" if kind is KeyboardInterrupt else "crashed"
                self._end(exit, "%s: %s" % (kind.__name__, error))
        except LeaseLost:
            pass  # the end of a trial that is not ours any more is of no use to anyone
        except Error:
            if kind is None:
                raise  # else the program's own error is the one to see
        return False
