"""Runs Optuna on problems that the other end of the pipe evaluates.

Standard input: a JSON line for each run (space, seed, trials, open), then a
number a line for each trial asked. Standard output: a JSON line of parameters
for each trial, choices and listed numbers by position. With several trials open
they end in the order they began.
"""

import json
import sys
import warnings

warnings.filterwarnings("ignore")
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

optuna.logging.set_verbosity(optuna.logging.ERROR)


def sampler_for(name, task):
    seed = task["seed"] % 2**32
    s = optuna.samplers
    if name == "random":
        return s.RandomSampler(seed=seed)
    if name == "tpe":  # as a knowing user of this version has it: see its documentation
        return s.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=task["open"] > 1)
    if name == "tpe-default":
        return s.TPESampler(seed=seed)
    if name == "nsga2":
        return s.NSGAIISampler(seed=seed, population_size=16)
    if name == "cmaes":
        return s.CmaEsSampler(seed=seed)
    if name == "gp":
        return s.GPSampler(seed=seed)
    sys.exit("peer: sampler %r is not known: random, tpe, tpe-default, nsga2, cmaes, gp" % name)


def distribution(a):
    if a["kind"] == "categorical":
        return CategoricalDistribution(list(range(a["choices"])))
    if a["kind"] == "int":
        return IntDistribution(int(a["low"]), int(a["high"]), log=a["log"])
    return FloatDistribution(a["low"], a["high"], log=a["log"])


def suggest(trial, space):
    params = {}
    for a, d in space:
        if any(params.get(w["parent"], -1) not in w["any"] for w in a.get("when", [])):
            continue
        params[a["name"]] = trial._suggest(a["name"], d)
    return params


def main():
    for line in sys.stdin:
        task = json.loads(line)
        space = [(a, distribution(a)) for a in task["space"]]
        study = optuna.create_study(sampler=sampler_for(sys.argv[1], task))
        running = []
        begun = 0
        for _ in range(task["trials"]):
            while begun < task["trials"] and len(running) < task["open"]:
                trial = study.ask()
                running.append((trial, suggest(trial, space)))
                begun += 1
            trial, params = running.pop(0)
            print(json.dumps(params), flush=True)
            study.tell(trial, float(sys.stdin.readline()))


main()
