#!/usr/bin/python3
"""What scikit-learn says of the predictions on standard input: JSON {classes, true, probs, top}."""
import json, sys, warnings
import numpy as np
from sklearn import metrics as m

warnings.filterwarnings("ignore")
a = json.load(sys.stdin)
n = len(a["classes"])
labels = list(range(n))
true, probs = np.array(a["true"]), np.array(a["probs"], dtype=np.float64)
predicted = probs.argmax(axis=1)
p, r, f, s = m.precision_recall_fscore_support(true, predicted, labels=labels, zero_division=0)
average = {k: list(map(float, m.precision_recall_fscore_support(true, predicted, labels=labels, average=k, zero_division=0)[:3])) for k in ("macro", "weighted")}
print(json.dumps(dict(
    accuracy=float(m.accuracy_score(true, predicted)), balanced=float(m.balanced_accuracy_score(true, predicted)),
    precision=p.tolist(), recall=r.tolist(), f1=f.tolist(), support=s.tolist(), average=average,
    confusion=m.confusion_matrix(true, predicted, labels=labels).tolist(),
    top={str(k): float(m.top_k_accuracy_score(true, probs[:, 1] if n == 2 else probs, k=k, labels=labels)) for k in a["top"] if n > 2},
    log_loss=float(m.log_loss(true, probs, labels=labels)),
    report=m.classification_report(true, predicted, labels=labels, target_names=a["classes"], zero_division=0))))
