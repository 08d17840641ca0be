package e2e_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
)

// Two of three coordinators are killed: the commands answer from Redis, within a
// second, and say that there is no leader.
func TestBoardsWithoutALeader(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 3, Workers: 1, Redis: true})
	c := cluster.Client()
	id := submit(t, ctx, c, "search_method: random\nseed: 1\nobjective: {metric: val_loss, direction: minimize}\nbudget: {trials: 2}\nparallelism: 1\ntrainer: sim\n"+
		"space: {lr: {type: float, low: 0.001, high: 0.1}}\ntraining: {epochs: 2}\n")
	await(t, ctx, c, id, "the sweep has ended", ended)
	checkRedisEqualsStateRows(t, ctx, c, id, 2)
	commands := [][]string{{"leaderboard", id}, {"checkpoint", "list", id}}
	var before []string
	for _, args := range commands {
		out, errs, code := atelier(t, ctx, cluster, append(args, "-o", "json")...)
		if code != 0 || !strings.Contains(out, `"trial"`) || strings.Contains(errs, "no leader") {
			t.Fatalf("%v with all up: exit %d, %s%s", args, code, out, errs)
		}
		before = append(before, out)
	}
	must(t, cluster.Coordinators[0].Kill())
	must(t, cluster.Coordinators[1].Kill())
	last := cluster.Coordinators[2]
	for {
		r, err := c.Node(ctx, last.Addr)
		must(t, err)
		if r.LeaderID == "" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for i, args := range commands {
		fastest := time.Hour
		for range 3 {
			began := time.Now()
			out, errs, code := atelier(t, ctx, cluster, append(args, "-o", "json")...)
			fastest = min(fastest, time.Since(began))
			if code != 0 || out != before[i] || !strings.Contains(errs, "from redis at index") || !strings.Contains(errs, "no leader: coordinator "+last.Name+" answers and cannot reach") {
				t.Errorf("%v: exit %d, %s\n%s, was %s", args, code, out, errs, before[i])
			}
		}
		t.Logf("%v answered after %v", args[0], fastest)
		if fastest > time.Second {
			t.Errorf("%v took %v", args, fastest)
		}
	}
	if _, errs, code := atelier(t, ctx, cluster, "leaderboard", id, "--source", "state"); code != 5 {
		t.Errorf("the state without a leader: exit %d, %s", code, errs)
	}
}
