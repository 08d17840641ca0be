package api

import (
	"fmt"
	"net/http"

	"atelier/common/access"
	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"
)

// answerer is which node answers a request.
type answerer int

const (
	byLeader answerer = iota // whoever leads; another node hands the request on
	byNode                   // the node asked, of itself
	byBoard                  // the node asked, from Redis where there is one; else the leader
)

// route is a path of the API: who answers it, and what it asks of its caller in a closed cluster.
type route struct {
	path  string // of a method: /SERVICE/METHOD; one that ends in a slash is for all below it
	by    answerer
	need  access.Need // of GET and HEAD, where write is set
	write access.Need // of all other methods; 0 = as need
}

// routes is every path that a coordinator answers. Handlers are registered from this table alone: a
// method of a service that is not in it does not start (New), and a path that is not in it is not
// found.
var routes = []route{
	{path: atelierv1connect.SweepServiceCreateSweepProcedure, need: access.Operators},
	{path: atelierv1connect.SweepServiceGetSweepProcedure, need: access.Viewers | access.Workers},
	{path: atelierv1connect.SweepServiceListSweepsProcedure, need: access.Viewers},
	{path: atelierv1connect.SweepServiceControlSweepProcedure, need: access.Operators},
	{path: atelierv1connect.SweepServiceExtendSweepProcedure, need: access.Operators},
	{path: atelierv1connect.SweepServiceWaitSweepProcedure, need: access.Viewers},
	{path: atelierv1connect.SweepServiceGetLeaderboardProcedure, need: access.Viewers, by: byBoard},
	{path: atelierv1connect.SweepServiceListCheckpointsProcedure, need: access.Viewers | access.Trials | access.Workers, by: byBoard},
	{path: atelierv1connect.SweepServiceEnqueueTrialsProcedure, need: access.Operators},
	{path: atelierv1connect.SweepServicePrioritizeSweepProcedure, need: access.Operators},
	{path: atelierv1connect.SweepServiceVerifySweepProcedure, need: access.Viewers},
	{path: atelierv1connect.SweepServiceGetImportanceProcedure, need: access.Viewers},
	{path: atelierv1connect.SweepServiceGetProgressProcedure, need: access.Viewers},
	{path: atelierv1connect.SweepServiceLabelSweepProcedure, need: access.Operators},
	{path: atelierv1connect.SweepServiceSetAliasProcedure, need: access.Operators},
	{path: atelierv1connect.SweepServiceListAliasesProcedure, need: access.Viewers},
	{path: atelierv1connect.SweepServiceSetNotificationProcedure, need: access.Operators},
	{path: atelierv1connect.SweepServicePurgeSweepProcedure, need: access.Admins}, // cannot be taken back

	{path: atelierv1connect.TrialServiceListTrialsProcedure, need: access.Viewers},
	{path: atelierv1connect.TrialServiceGetTrialProcedure, need: access.Viewers | access.Trials | access.Workers},
	{path: atelierv1connect.TrialServiceGetCurveProcedure, need: access.Viewers | access.Trials},
	{path: atelierv1connect.TrialServiceStopTrialProcedure, need: access.Operators},
	{path: atelierv1connect.TrialServiceRetryTrialProcedure, need: access.Operators},
	{path: atelierv1connect.TrialServiceAskTrialProcedure, need: access.Operators},
	{path: atelierv1connect.TrialServiceTellTrialProcedure, need: access.Operators | access.Trials},

	{path: atelierv1connect.WorkerServiceHeartbeatProcedure, need: access.Workers},
	{path: atelierv1connect.WorkerServiceAcquireProcedure, need: access.Workers},
	{path: atelierv1connect.WorkerServiceRelayProcedure, need: access.Workers},
	{path: atelierv1connect.WorkerServiceListWorkersProcedure, need: access.Viewers},
	{path: atelierv1connect.WorkerServiceDrainWorkerProcedure, need: access.Operators},

	{path: atelierv1connect.ClusterServiceGetStatusProcedure, need: access.Viewers},
	{path: atelierv1connect.ClusterServiceListMembersProcedure, need: access.Viewers | access.Workers | access.Coordinators},
	{path: atelierv1connect.ClusterServiceJoinProcedure, need: access.Coordinators},
	{path: atelierv1connect.ClusterServiceRemoveMemberProcedure, need: access.Admins | access.Coordinators},
	{path: atelierv1connect.ClusterServiceTransferLeadershipProcedure, need: access.Admins},
	{path: atelierv1connect.ClusterServiceSaveSnapshotProcedure, need: access.Admins},
	{path: atelierv1connect.ClusterServiceRestoreSnapshotProcedure, need: access.Admins},
	{path: atelierv1connect.ClusterServiceEnrollProcedure, need: access.Anybody}, // shows an invitation
	{path: atelierv1connect.ClusterServiceRenewProcedure, need: access.Workers | access.Coordinators},
	// Every client asks it for the leader's address.
	{path: atelierv1connect.ClusterServiceGetNodeProcedure, need: access.Viewers | access.Workers | access.Coordinators | access.Trials, by: byNode},

	{path: atelierv1connect.AccessServiceWhoAmIProcedure, need: access.Anybody, by: byNode},
	{path: atelierv1connect.AccessServiceCreateTokenProcedure, need: access.Admins},
	{path: atelierv1connect.AccessServiceListTokensProcedure, need: access.Admins},
	{path: atelierv1connect.AccessServiceRevokeTokenProcedure, need: access.Admins},
	{path: atelierv1connect.AccessServiceCreateInviteProcedure, need: access.Admins},
	{path: atelierv1connect.AccessServiceListInvitesProcedure, need: access.Admins},
	{path: atelierv1connect.AccessServiceRevokeInviteProcedure, need: access.Admins},
	{path: atelierv1connect.AccessServiceListAuditProcedure, need: access.Admins},
	{path: atelierv1connect.AccessServiceReportRefusalsProcedure, need: access.Coordinators},

	{path: client.WorkerFilesPath, need: access.Viewers | access.Trials, write: access.Operators | access.Trials},
	{path: client.RunLogPath, need: access.Viewers, write: access.Workers, by: byNode},
	{path: "/healthz", need: access.Anybody, by: byNode}, // balancers and supervisors have no token
	{path: "/metrics", need: access.Viewers, by: byNode},
}

// asks is what a request of this method needs.
func (r *route) asks(method string) access.Need {
	if r.write != 0 && method != http.MethodGet && method != http.MethodHead {
		return r.write
	}
	return r.need
}

// Declared is a route as others may look at it, for tests and for documentation.
type Declared struct {
	Path        string
	Need, Write access.Need // Write is of methods other than GET, where it differs
}

// Routes are all paths of the API with what each asks of its caller.
func Routes() []Declared {
	list := make([]Declared, len(routes))
	for i, r := range routes {
		list[i] = Declared{r.path, r.need, r.asks(http.MethodPost)}
	}
	return list
}

// register puts handlers behind the table's paths: handler returns that of a path, nil where this
// node has none (logs of runs that are kept nowhere).
func (s *Server) register(handler func(r *route) http.Handler) {
	declared := map[string]bool{}
	for i := range routes {
		r := &routes[i]
		if r.asks(http.MethodGet) == 0 || declared[r.path] {
			panic("api: route " + r.path + " asks for no role, or is declared twice")
		}
		declared[r.path] = true
		if h := handler(r); h != nil {
			s.mux.Handle(r.path, s.guard(r, h))
		}
	}
	// What is not declared would be answered without a look at its caller, so it does not start.
	services := atelierv1.File_atelier_v1_api_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			if path := fmt.Sprintf("/%s/%s", services.Get(i).FullName(), methods.Get(j).Name()); !declared[path] {
				panic("api: " + path + " is in no row of routes: say what it asks of its caller")
			}
		}
	}
}
