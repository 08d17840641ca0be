#!/usr/bin/env bash
# Trains the trials of a sweep with `trainer: external`, one after another, until
# the sweep has ended.
#
#   external.sh SWEEP TRAIN
#
# TRAIN is run once a trial with its parameters as JSON in $PARAMS, and prints
# one number a line: the objective after each epoch. ATELIER names the command
# where it is not on the PATH, ATELIER_ADDR the cluster. Needs jq.
set -uo pipefail
atelier=${ATELIER:-atelier} sweep=$1 train=$2

while :; do
  asked=$("$atelier" trial ask "$sweep" --term "${TERM_OF_LEASE:-10m}" --wait 1m --name "$(hostname).$$")
  case $? in
    0) ;;
    3) exit 0 ;;    # the sweep has ended
    124) continue ;; # none was free
    *) exit 1 ;;
  esac
  trial=$(jq -r .trial <<<"$asked") token=$(jq -r .token <<<"$asked")
  tell() { "$atelier" trial tell "$sweep" "$trial" --token "$token" -o json "$@"; }

  end=--done
  while read -r value; do
    answer=$(tell --value "$value") || { end=; break; } # the trial is somebody else's now
    case $(jq -r .verdict <<<"$answer") in
      stop) end=--stopped; break ;;
      pause) end=--paused; break ;;
    esac
  done < <(PARAMS=$(jq -c .params <<<"$asked") "$train" || echo failed)
  if [ "$value" = failed ]; then end="--failed crashed"; fi
  # shellcheck disable=SC2086
  [ -z "$end" ] || tell $end >/dev/null
done
