package client

import (
	"context"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// Promotion is a checkpoint that an alias is to name.
type Promotion struct {
	Alias string
	Sweep string
	Trial int64  // 0 = the sweep's best
	Epoch int32  // 0 = the trial's best checkpoint
	By    string // who says so
}

// Promote lets an alias name a checkpoint, and no other from then on.
func (c *Client) Promote(ctx context.Context, requestID string, p Promotion) (*trial.Alias, error) {
	m, err := ask(ctx, c.raw.Sweeps.SetAlias, &atelierv1.SetAliasRequest{RequestId: requestID, Name: p.Alias, SweepId: p.Sweep, Trial: p.Trial, Epoch: p.Epoch, By: p.By})
	return aliasOf(m.GetAlias()), err
}

// RemoveAlias takes a name away and returns it as it was; nil where there was none.
func (c *Client) RemoveAlias(ctx context.Context, requestID, name, by string) (*trial.Alias, error) {
	m, err := ask(ctx, c.raw.Sweeps.SetAlias, &atelierv1.SetAliasRequest{RequestId: requestID, Name: name, By: by})
	return aliasOf(m.GetAlias()), err
}

// Aliases lists the aliases by name.
func (c *Client) Aliases(ctx context.Context) ([]trial.Alias, error) {
	m, err := ask(ctx, c.raw.Sweeps.ListAliases, &atelierv1.ListAliasesRequest{})
	return wire.List(m.GetAliases(), wire.Alias), err
}

// Alias asks for one.
func (c *Client) Alias(ctx context.Context, name string) (*trial.Alias, error) {
	m, err := ask(ctx, c.raw.Sweeps.ListAliases, &atelierv1.ListAliasesRequest{Name: name})
	if err != nil || len(m.GetAliases()) != 1 {
		return nil, err
	}
	return aliasOf(m.GetAliases()[0]), nil
}

func aliasOf(a *atelierv1.Alias) *trial.Alias {
	if a == nil {
		return nil
	}
	return new(wire.Alias(a))
}
