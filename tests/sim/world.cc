#include "tests/sim/world.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace sauva::sim {
namespace {

constexpr absl::Duration kFaultsFor = absl::Seconds(20);
// Within it everything must have ended once faults stopped: back-offs, leases and loads of
// several attempts, and the work itself.
// How long nothing may reach any client; many requests on a slow network take their turns.
constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr int64_t kLayerBytes = 1'000'000;

ModelDescription TheModel() {
  ModelDescription model{.ref = {.name = "memory", .digest = "memory-digest"},
                         .max_context = kMaxContext,
                         .vocab_size = kVocabSize};
  model.costs.layers.assign(
      kLayers,
      {.weight_bytes = kLayerBytes, .kv_bytes_per_token = 100, .operations_per_token = 1e5});
  model.costs.hidden_bytes_per_token = 16;
  return model;
}

}  // namespace

Scenario ScenarioOf(uint64_t seed) {
  Random random(seed * 2 + 1);
  Scenario scenario{.seed = seed};
  scenario.replicas = random.Chance(30) ? 2 : 1;
  const int stages = random.Int(1, 4);
  scenario.stages = random.Chance(70) ? stages : 0;
  scenario.spares = random.Int(0, 2);
  scenario.num_workers = stages * scenario.replicas + scenario.spares;
  // Sometimes one worker cannot hold the model alone.
  const bool scarce = stages >= 2 && random.Chance(40);
  scenario.worker_memory_bytes = static_cast<uint64_t>(kLayerBytes) * (scarce ? 4 : 20);
  scenario.max_kv_blocks = static_cast<uint32_t>(random.Int(kMaxContext / kKvBlockTokens, 30));
  scenario.max_step_tokens = random.Int(4, 64);
  scenario.max_sequences = random.Int(1, 12);
  scenario.num_requests = random.Int(4, 40);
  scenario.num_faults = random.Int(0, 8);
  return scenario;
}

World::World(const Scenario& scenario, Trace trace)
    : scenario_(scenario), trace_(trace), random_(scenario.seed), network_(timeline_, random_) {
  began_ = timeline_.now();
  faults_end_ = began_ + kFaultsFor;
  coordinator_node_ = network_.AddNode();
  gateway_node_ = network_.AddNode();
  const auto resolve = [this](const std::string& address) { return Resolve(address); };
  gateway_ = std::make_unique<SimGateway>(
      SimGateway::Surroundings{timeline_, network_, random_, coordinator_node_, resolve,
                               [this](const std::string& violation) { Fail(violation); }},
      gateway_node_, SessionLimits{});
  network_.Start(gateway_node_, gateway_.get());
  StartCoordinator();
  for (int i = 0; i < scenario_.num_workers; ++i) {
    workers_.push_back({.node = network_.AddNode()});
    StartWorker(workers_.size() - 1);
  }
}

World::~World() = default;

void World::Fail(const std::string& violation) {
  violations_.push_back(absl::StrCat(Seconds(), " s: ", violation));
}

void World::Tell(const std::string& what) const {
  if (trace_ == Trace::kOn) std::printf("%9.4f %s\n", Seconds(), what.c_str());
}

void World::Tell(const LogNote& note) const {
  std::string line = absl::StrCat("  coordinator: ", note.event);
  for (const LogField& field : note.fields) {
    absl::StrAppend(&line, " ", field.key, "=", field.value);
  }
  Tell(line);
}

std::vector<std::string> World::Run() {
  PlanRequests();
  PlanFaults();
  RunUntilEnded();
  if (violations_.empty()) CheckRest();
  Count("resumes", gateway_->num_resumes());
  for (const SimRequest& request : requests_) {
    if (!request.end) continue;
    Count(absl::StrCat("requests ended ", absl::StatusCodeToString(request.end->code())));
    Count("tokens delivered", request.received.size());
  }
  return violations_;
}

void World::RunUntilEnded() {
  while (violations_.empty()) {
    if (timeline_.now() > faults_end_ && AllRequestsEnded()) {
      happenings_.longest_wait = timeline_.now() - faults_end_;
      return;
    }
    if (timeline_.now() > std::max(faults_end_, gateway_->last_delivery()) + kPatience) {
      return Fail(absl::StrCat(gateway_->num_open(),
                               " requests have not ended, and none goes on:", WhatIsOpen()));
    }
    timeline_.Step();
  }
}

std::string World::WhatIsOpen() const {
  std::string open;
  for (const SimRequest& request : requests_) {
    if (request.end) continue;
    absl::StrAppend(&open, " ", request.sample.request_id, " with ", request.received.size(),
                    " tokens of ", request.sample.rules.sampling.max_tokens);
  }
  for (const WorkerNode& worker : workers_) {
    const HeadSession& head = worker.process->session().head();
    if (head.num_streams() == 0) continue;
    absl::StrAppend(&open, "; ", worker.process->options().worker_id, " has ", head.num_streams(),
                    " streams, ", head.num_running(), " running, ", head.num_waiting(), " waiting");
  }
  absl::StrAppend(&open, "; ", coordinator_->machine().num_waiting(), " dispatches wait");
  return open;
}

bool World::AllRequestsEnded() const {
  return std::ranges::all_of(requests_, [](const SimRequest& r) { return r.end.has_value(); });
}

// --- Processes

void World::StartCoordinator() {
  CoordinatorConfig config;
  config.start_time_ms = static_cast<uint64_t>(absl::ToUnixMillis(timeline_.now() + clock_error_));
  config.tick = absl::Milliseconds(50);
  config.stages = scenario_.stages;
  config.spares = scenario_.spares;
  config.link = scenario_.seed % 3 == 0 ? LinkPolicy::kGrpc : LinkPolicy::kAuto;
  config.max_step_tokens = scenario_.max_step_tokens;
  config.max_sequences = scenario_.max_sequences;
  config.expected_workers = scenario_.seed % 2 == 0 ? scenario_.num_workers : 0;
  coordinator_ = std::make_unique<SimCoordinator>(timeline_, network_, coordinator_node_, config,
                                                  [this](const LogNote& note) { Tell(note); });
  network_.Start(coordinator_node_, coordinator_.get());
  coordinator_->Begin(TheModel(), scenario_.replicas);
}

void World::KillCoordinator() {
  if (!network_.alive(coordinator_node_)) return;
  Count("coordinators killed");
  const CoordinatorCounters& counters = coordinator_->machine().counters();
  Count("epochs started", counters.epochs_started);
  Count("epochs adopted", counters.epochs_adopted);
  network_.Kill(coordinator_node_);
  // Clocks are set back now and then.
  if (random_.Chance(20)) clock_error_ -= absl::Minutes(random_.Int(1, 60));
  timeline_.After(Outage(), [this] {
    if (!network_.alive(coordinator_node_)) StartCoordinator();
  });
}

SimWorkerOptions World::OptionsFor(const WorkerNode& worker, size_t index) {
  SimWorkerOptions options{
      .worker_id = absl::StrCat("w", index, "-", worker.starts),
      .address = worker.address,
      .memory_bytes = scenario_.worker_memory_bytes,
      .max_kv_blocks = scenario_.max_kv_blocks,
      .load_time = random_.Between(absl::Milliseconds(20), absl::Milliseconds(800)),
      .step_time = random_.Between(absl::Milliseconds(4), absl::Milliseconds(40)),
      .load_failure_percent = timeline_.now() < faults_end_ && random_.Chance(5) ? 50 : 0};
  options.session.head.step_timeout = absl::Seconds(2);
  options.session.connect_timeout = absl::Seconds(5);
  return options;
}

void World::StartWorker(size_t index) {
  WorkerNode& worker = workers_[index];
  ++worker.starts;
  // A supervisor gives a restarted worker its port again, or another one.
  if (worker.address.empty() || random_.Chance(50)) {
    worker.address = absl::StrCat("node-", index, ":", worker.starts);
  }
  worker.process = std::make_unique<SimWorker>(
      SimWorker::Surroundings{timeline_, network_, random_, coordinator_node_,
                              [this](const std::string& address) { return Resolve(address); },
                              [this](NodeId a, NodeId b) { return NcclConnects(a, b); },
                              [this, index] {
                                timeline_.After(absl::ZeroDuration(),
                                                [this, index] { EndWorker(index); });
                              }},
      worker.node, OptionsFor(worker, index));
  network_.Start(worker.node, worker.process.get());
  worker.process->Begin();
  Tell(absl::StrCat("started ", worker.process->options().worker_id));
}

std::optional<NodeId> World::Resolve(const std::string& address) const {
  for (const WorkerNode& worker : workers_) {
    if (worker.address == address) return worker.node;
  }
  return std::nullopt;
}

// In one world of four something is in the way between some of the machines.
bool World::NcclConnects(NodeId a, NodeId b) {
  const bool connects =
      scenario_.seed % 4 != 1 || (static_cast<uint64_t>(a + b) + scenario_.seed) % 3 != 0;
  if (!connects) Count("NCCL links blocked");
  return connects;
}

void World::KillWorker(size_t index) {
  WorkerNode& worker = workers_[index];
  if (!network_.alive(worker.node)) return;
  Count("preemptions", worker.process->session().head().counters().preemptions);
  network_.Kill(worker.node);
  timeline_.After(Outage(), [this, index] {
    if (!network_.alive(workers_[index].node)) StartWorker(index);
  });
}

// A process that has drained ends by itself, and its supervisor starts the next.
void World::EndWorker(size_t index) {
  Count("workers drained");
  KillWorker(index);
}

void World::DrainWorker(size_t index) {
  WorkerNode& worker = workers_[index];
  if (!network_.alive(worker.node) || network_.frozen(worker.node)) return;
  if (random_.Chance(50) && network_.alive(coordinator_node_)) {
    coordinator_->Drain(worker.process->options().worker_id,
                        random_.Between(absl::Milliseconds(100), absl::Seconds(5)));
    // As an operator would, once it is out of service.
    const std::string id = worker.process->options().worker_id;
    timeline_.After(absl::Seconds(6), [this, index, id] {
      if (network_.alive(workers_[index].node) &&
          workers_[index].process->options().worker_id == id) {
        KillWorker(index);
      }
    });
  } else {
    worker.process->ShutDown();
  }
}

// --- What the seed decides

absl::Duration World::Outage() {
  return random_.Chance(70) ? random_.Between(absl::Milliseconds(10), absl::Seconds(1))
                            : random_.Between(absl::Seconds(1), absl::Seconds(6));
}

void World::PlanRequests() {
  std::vector<TokenId> shared;  // many prompts begin alike
  for (int i = 0; i < 48; ++i) shared.push_back(random_.Int(1, kVocabSize - 1));
  for (int i = 0; i < scenario_.num_requests; ++i) {
    SimRequest& request = requests_.emplace_back();
    SampleRequest& sample = request.sample;
    sample.model = TheModel().ref;
    sample.vocab_size = kVocabSize;
    sample.request_id = absl::StrCat("r", i);
    sample.sample_index = static_cast<uint32_t>(random_.Int(0, 3));
    const int common = random_.Chance(60) ? random_.Int(1, 48) : 0;
    sample.prompt.assign(shared.begin(), shared.begin() + common);
    const int own = random_.Int(common == 0 ? 1 : 0, 30);
    for (int k = 0; k < own; ++k) sample.prompt.push_back(random_.Int(1, kVocabSize - 1));
    sample.rules.sampling.seed = random_.Chance(50) ? 5 : random_.Next();
    // A gateway asks for no more than the context holds.
    const int room = kMaxContext - static_cast<int>(sample.prompt.size());
    sample.rules.sampling.max_tokens = std::min(room, random_.Int(1, 60));
    sample.rules.sampling.ignore_eos = random_.Chance(50);
    sample.rules.eos_tokens = {kEos};
    request.oracle = OracleOf(sample.prompt, sample.rules.sampling, sample.sample_index);
    request.arrives = random_.Between(absl::ZeroDuration(), kFaultsFor);
    if (random_.Chance(10)) {
      request.cancelled = random_.Between(absl::ZeroDuration(), absl::Seconds(3));
    }
    if (random_.Chance(10)) {
      sample.deadline = timeline_.now() + request.arrives +
                        random_.Between(absl::Milliseconds(100), absl::Seconds(10));
    }
    timeline_.After(request.arrives, [this, &request] { gateway_->Take(request); });
  }
}

void World::PlanFaults() {
  for (int i = 0; i < scenario_.num_faults; ++i) {
    timeline_.After(random_.Between(absl::ZeroDuration(), kFaultsFor), [this] { DoFault(); });
  }
}

void World::Fault(const std::string& what, size_t worker) {
  Count(what);
  Tell(absl::StrCat("fault: ", what, ", worker ", worker));
}

void World::DoFault() {
  const auto index = static_cast<size_t>(random_.Int(0, scenario_.num_workers - 1));
  const NodeId node = workers_[index].node;
  const int kind = random_.Int(0, 99);
  if (kind < 25) {
    Fault("workers killed", index);
    KillWorker(index);
  } else if (kind < 40) {
    Fault("workers frozen", index);
    network_.Freeze(node, Outage());
  } else if (kind < 50) {
    Fault("partitions", index);
    const NodeId other = random_.Int(0, static_cast<int>(workers_.size()) + 1);
    if (other != node) network_.Partition(node, other, Outage());
  } else if (kind < 60) {
    Fault("wires broken", index);
    network_.BreakSomeWire(node);
  } else if (kind < 70) {
    Tell("fault: coordinator killed");
    KillCoordinator();
  } else if (kind < 75) {
    Fault("coordinators frozen", index);
    network_.Freeze(coordinator_node_, Outage());
  } else if (kind < 82) {
    Fault("drains", index);
    DrainWorker(index);
  } else if (kind < 88) {
    Fault("slow readers", index);
    network_.SetSlowness(gateway_node_, absl::Milliseconds(random_.Int(5, 40)));
    timeline_.After(absl::Seconds(3),
                    [this] { network_.SetSlowness(gateway_node_, absl::ZeroDuration()); });
  } else if (kind < 95) {
    Fault("slow networks", index);
    network_.SetDelay(absl::Milliseconds(5), absl::Milliseconds(random_.Int(10, 300)));
    timeline_.After(absl::Seconds(3),
                    [this] { network_.SetDelay(absl::Microseconds(100), absl::Milliseconds(2)); });
  } else if (network_.alive(node) && !network_.frozen(node)) {
    Fault("second joins", index);
    workers_[index].process->JoinAgain();
  }
}

// --- The end

// With nobody asking for anything, every block is free, on every stage.
void World::CheckRest() {
  const absl::Time rest = timeline_.now() + absl::Seconds(30);
  while (timeline_.now() < rest) timeline_.Step();
  int heads = 0;
  for (const WorkerNode& worker : workers_) {
    if (!network_.alive(worker.node)) continue;
    const WorkerSession& session = worker.process->session();
    const HeadSession& head = session.head();
    const std::string id = worker.process->options().worker_id;
    Count("preemptions", head.counters().preemptions);
    Count("cached tokens", head.counters().cached_tokens);
    if (head.num_streams() != 0) Fail(absl::StrCat(id, " still has streams"));
    if (session.stage().num_open_sequences() != 0) Fail(absl::StrCat(id, " has open sequences"));
    if (!session.serving()) continue;
    if (worker.process->engine().num_sequences() != 0) {
      Fail(absl::StrCat("the engine of ", id, " still has sequences"));
    }
    const std::optional<StageReport> report = session.Report();
    if (!report->assignment.is_head()) continue;
    ++heads;
    if (report->free_kv_blocks != report->num_kv_blocks) {
      Fail(absl::StrCat(id, " has ", report->free_kv_blocks, " of ", report->num_kv_blocks,
                        " KV blocks free at rest"));
    }
  }
  const CoordinatorCounters& counters = coordinator_->machine().counters();
  Count("epochs started", counters.epochs_started);
  Count("epochs adopted", counters.epochs_adopted);
  const int ready = coordinator_->machine().num_ready_pipelines();
  if (ready == 0) Fail("no pipeline is ready at rest");
  if (heads != ready) Fail(absl::StrCat(heads, " heads serve ", ready, " ready pipelines"));
  if (coordinator_->machine().num_waiting() != 0) Fail("dispatches wait at rest");
}

}  // namespace sauva::sim
