package cli_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "atelier/common/proto/atelier/v1"

	"connectrpc.com/connect"
)

func (f *fake) SetAlias(_ context.Context, r *connect.Request[v1.SetAliasRequest]) (*connect.Response[v1.SetAliasResponse], error) {
	if err := f.write(r.Msg.RequestId, r.Msg); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	at := slices.IndexFunc(f.named, func(a *v1.Alias) bool { return a.Name == r.Msg.Name })
	if r.Msg.SweepId == "" {
		if at < 0 {
			return ok(&v1.SetAliasResponse{}, nil)
		}
		was := f.named[at]
		f.named = slices.Delete(f.named, at, at+1)
		return ok(&v1.SetAliasResponse{Alias: was}, nil)
	}
	all := f.checkpoints()
	k := all[slices.IndexFunc(all, func(k *v1.Checkpoint) bool { return k.Epoch == max(r.Msg.Epoch, 2) })]
	place := &v1.AliasPlace{SweepId: r.Msg.SweepId, Trial: 7, Epoch: k.Epoch, Sha256: k.Sha256, Size: k.Size, SinceMs: ms(time.Minute), By: strings.SplitN(r.Msg.By, "@", 2)[0]}
	if at < 0 {
		f.named = append(f.named, &v1.Alias{Name: r.Msg.Name})
		at = len(f.named) - 1
	}
	f.named[at].Places = append([]*v1.AliasPlace{place}, f.named[at].Places...)
	f.named[at].Location = k.Location
	return ok(&v1.SetAliasResponse{Alias: f.named[at]}, nil)
}

func (f *fake) ListAliases(_ context.Context, r *connect.Request[v1.ListAliasesRequest]) (*connect.Response[v1.ListAliasesResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(f.named), func(a *v1.Alias) bool { return r.Msg.Name != "" && a.Name != r.Msg.Name })
	if len(list) == 0 && r.Msg.Name != "" {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no alias %q", r.Msg.Name))
	}
	return ok(&v1.ListAliasesResponse{Aliases: list}, nil)
}
