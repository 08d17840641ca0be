#!/usr/bin/env python3
"""Trains the trials of a sweep with `trainer: external`, one after another, until
the sweep has ended.

    external.py SWEEP TRAIN [ARGUMENT ...]

TRAIN is run once a trial, with the parameters as JSON in the environment
variable PARAMS, and prints the objective after each epoch, a number a line.
ATELIER names the command where it is not on the PATH; ATELIER_ADDR the cluster.
"""
import json
import os
import signal
import socket
import subprocess
import sys

ATELIER = os.environ.get("ATELIER", "atelier")
ENDED, TIMEOUT = 3, 124  # exit codes of `trial ask`


def atelier(*args):
    """Runs the command; returns its exit code and what it said as JSON."""
    done = subprocess.run([ATELIER, *args, "-o", "json"], stdout=subprocess.PIPE, text=True)
    return done.returncode, json.loads(done.stdout) if done.returncode == 0 else None


def train(sweep, trial, command):
    """Trains one trial and tells how it went."""
    mine = [sweep, str(trial["trial"]), "--token", str(trial["token"])]
    env = dict(os.environ, PARAMS=json.dumps(trial["params"]))
    end = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as child:
        for line in child.stdout:
            code, answer = atelier("trial", "tell", *mine, "--value", line.strip())
            if code != 0:  # the trial is somebody else's now
                child.send_signal(signal.SIGTERM)
                return
            if answer["verdict"] in ("stop", "pause"):
                end = {"stop": "--stopped", "pause": "--paused"}[answer["verdict"]]
                child.send_signal(signal.SIGTERM)
                break
    if end is not None:
        atelier("trial", "tell", *mine, end)
    elif child.returncode == 0:
        atelier("trial", "tell", *mine, "--done")
    else:
        atelier("trial", "tell", *mine, "--failed", "crashed", "--message", f"{command[0]} ended with {child.returncode}")


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sweep, command = sys.argv[1], sys.argv[2:]
    while True:
        code, trial = atelier("trial", "ask", sweep, "--term", "10m", "--wait", "1m", "--name", f"{socket.gethostname()}.{os.getpid()}")
        if code == ENDED:
            return
        if code == 0:
            train(sweep, trial, command)
        elif code != TIMEOUT:
            sys.exit(code)


if __name__ == "__main__":
    main()
