#include "tests/worker/fake_cluster.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace sauva {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

}  // namespace

FakeCluster::FakeCluster(int num_workers, const WorkerOptions& options) {
  for (int i = 0; i < num_workers; ++i) nodes_.emplace_back(options);
}

StageAssignment FakeCluster::Assignment(uint64_t epoch, const std::vector<int>& workers) const {
  StageAssignment assignment{.epoch = epoch, .model = {"fake", "digest"}};
  for (int i = 0; i < static_cast<int>(workers.size()); ++i) {
    const std::string name = Name(workers[static_cast<size_t>(i)]);
    assignment.stages.push_back({.worker_id = name, .address = name, .layers = {i, i + 1}});
  }
  assignment.max_step_tokens = 16;
  assignment.max_sequences = 8;
  assignment.numerics_id = "fake-numerics";
  return assignment;
}

void FakeCluster::Assign(const StageAssignment& assignment) {
  for (int i = 0; i < static_cast<int>(assignment.stages.size()); ++i) {
    StageAssignment own = assignment;
    own.stage_index = i;
    Send(WorkerAt(assignment.stages[static_cast<size_t>(i)].address), own);
  }
}

void FakeCluster::StartPipeline(uint64_t epoch, const std::vector<int>& workers) {
  Assign(Assignment(epoch, workers));
  Run();
  for (const int worker : workers) Send(worker, StartStage{epoch, 64});
  Run();
}

StreamId FakeCluster::Generate(int worker, SequenceRequest request) {
  const StreamId id = ++last_stream_;
  streams_[id] = {};
  Send(worker, StreamOpened{id, std::move(request)});
  return id;
}

void FakeCluster::Send(int worker, WorkerEvent event) {
  queue_.push_back({worker, std::move(event)});
}

void FakeCluster::Run(const std::function<bool()>& done) {
  for (int limit = 0; !queue_.empty() && !(done && done()); ++limit) {
    Check(limit < 1'000'000, "the cluster comes to rest");
    Queued next = std::move(queue_.front());
    queue_.pop_front();
    Deliver(std::move(next));
  }
}

void FakeCluster::Wait(absl::Duration duration) {
  const absl::Time end = now_ + duration;
  for (int limit = 0;; ++limit) {
    Check(limit < 100'000, "a session that is shown its deadline has done with it");
    absl::Time next = end;
    for (Node& node : nodes_) {
      if (!node.dead && !node.frozen) next = std::min(next, node.session.NextDeadline());
    }
    if (next >= end) break;
    now_ = std::max(now_, next);
    for (int i = 0; i < static_cast<int>(nodes_.size()); ++i) {
      if (node(i).session.NextDeadline() <= now_) Send(i, WorkerTick{});
    }
    Run();
  }
  now_ = end;
}

void FakeCluster::Kill(int worker) {
  node(worker).dead = true;
  for (const auto& [id, wire] : wires_) {
    if (wire.open && (wire.from == worker || wire.to == worker)) {
      End(id, absl::UnavailableError("connection reset"));
    }
  }
}

int FakeCluster::WorkerAt(const std::string& address) const {
  for (int i = 0; i < static_cast<int>(nodes_.size()); ++i) {
    if (Name(i) == address) return i;
  }
  Check(false, "addresses name workers");
  return -1;
}

IncomingId FakeCluster::WireOf(int from, OutgoingId id) const {
  for (const auto& [incoming, wire] : wires_) {
    if (wire.from == from && wire.outgoing == id) return incoming;
  }
  Check(false, "only opened streams are used");
  return 0;
}

void FakeCluster::Deliver(Queued queued) {
  Node& target = node(queued.worker);
  if (target.dead || target.frozen) return;
  for (WorkerEffect& effect : target.session.OnEvent(std::move(queued.event), now_)) {
    Apply(queued.worker, effect);
  }
  target.session.head().CheckInvariants();
}

void FakeCluster::Apply(int worker, WorkerEffect& effect) {
  Node& from = node(worker);
  std::visit(
      Overloaded{
          [&](LoadLayers& e) {
            ++from.num_loads;
            Send(worker, StageLoaded{.epoch = e.assignment.epoch,
                                     .stage = {.facts = FakeFacts(), .max_kv_blocks = 64}});
            from.engine.Start(e.assignment);
          },
          [&](AllocateKv& e) { Send(worker, KvAllocated{.epoch = e.epoch, .kv_bytes = 4096}); },
          [&](OpenSequence& e) { from.engine.Open(e); },
          [&](CloseSequence& e) { from.engine.Close(e); },
          [&](ComputeStep& e) { Send(worker, from.engine.Run(e)); },
          [&](StageReport& e) { from.reports.push_back(e); },
          [&](StageBroken& e) { from.broken.push_back(e); },
          [&](Heartbeat& e) { from.heartbeats.push_back(e); },
          [&](OpenOutgoing& e) { Open(worker, e); },
          [&](CloseOutgoing& e) {
            const IncomingId id = WireOf(worker, e.id);
            if (!wires_[id].open) return;
            wires_[id].open = false;
            Send(wires_[id].to, IncomingClosed{id, absl::AbortedError("closed by the caller")});
          },
          [&](SendOutgoing& e) {
            const IncomingId id = WireOf(worker, e.id);
            if (wires_[id].open) Send(wires_[id].to, IncomingMessage{id, std::move(e.message)});
          },
          [&](AcceptIncoming& e) {
            Wire& wire = wires_.at(e.id);
            Send(wire.from, OutgoingAccepted{wire.outgoing, e.hello});
          },
          [&](EndIncoming& e) {
            Wire& wire = wires_.at(e.id);
            if (!std::exchange(wire.open, false)) return;
            node(wire.from).refused.push_back(e.status);
            Send(wire.from, OutgoingClosed{wire.outgoing, e.status});
          },
          [&](SendIncoming& e) {
            Wire& wire = wires_.at(e.id);
            if (wire.open) Send(wire.from, OutgoingReply{wire.outgoing, std::move(e.reply)});
          },
          [&](StreamTokens& e) { Record(e); },
          [&](EndStream& e) {
            Check(!streams_[e.stream].end, "a stream ends once");
            streams_[e.stream].end = e.status;
          },
          [&](WorkerDrained&) { from.drained = true; },
      },
      effect);
}

void FakeCluster::Open(int worker, const OpenOutgoing& open) {
  ++node(worker).num_calls;
  const int to = WorkerAt(open.address);
  const IncomingId id = ++last_wire_;
  wires_[id] = {.from = worker, .outgoing = open.id, .to = to};
  if (node(to).dead) return End(id, absl::UnavailableError("connection refused"));
  Send(to, IncomingHello{id, open.kind, open.hello});
}

void FakeCluster::End(IncomingId id, const absl::Status& status) {
  Wire& wire = wires_.at(id);
  wire.open = false;
  Send(wire.from, OutgoingClosed{wire.outgoing, status});
  Send(wire.to, IncomingClosed{id, status});
}

void FakeCluster::Record(const StreamTokens& message) {
  FakeStream& stream = streams_[message.stream];
  Check(!stream.end, "nothing follows the end of a stream");
  if (stream.num_messages++ == 0) {
    Check(message.tokens.tokens.empty(), "the first message has no token");
    stream.numerics_id = message.tokens.numerics_id;
  }
  stream.tokens.insert(stream.tokens.end(), message.tokens.tokens.begin(),
                       message.tokens.tokens.end());
  stream.finish = message.tokens.finish;
}

SequenceRequest FakeRequest(uint64_t epoch, std::vector<TokenId> prompt, int num_tokens) {
  SequenceRequest request{.epoch = epoch, .request_id = "test", .prompt = std::move(prompt)};
  request.sampling.seed = 7;
  request.sampling.max_tokens = num_tokens;
  return request;
}

}  // namespace sauva
