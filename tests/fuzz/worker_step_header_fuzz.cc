// What a peer may write on Control and Link, in any bytes: it is refused, or a stage computes
// it and answers each sequence that wanted something, and nothing held grows.
//
// An input's first byte chooses the stage (bit 0: the whole model or its second half) and how
// the rest is read (bit 1). Clear: as messages in protobuf, each led by its kind (even:
// ControlMessage, odd: HiddenFrame) and its length in two bytes. Set: as small numbers that
// become well-formed messages, so that most reach the engine.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "engine/stage.h"
#include "kernels/factory.h"
#include "model/model.h"
#include "proto/stage_codec.h"
#include "tests/fuzz/driver.h"
#include "tests/model/tiny_checkpoint.h"
#include "worker/stage_session.h"

namespace sauva {
namespace {

constexpr int kLayers = 2;
constexpr int kBlocks = 8;
constexpr uint64_t kEpoch = 9;

StageAssignment Assignment(bool whole) {
  StageAssignment assignment{.epoch = kEpoch};
  if (!whole) assignment.stages.push_back({.worker_id = "head", .layers = {0, 1}});
  assignment.stages.push_back({.worker_id = "last", .layers = {whole ? 0 : 1, kLayers}});
  assignment.stage_index = whole ? 0 : 1;
  assignment.max_step_tokens = 8;
  assignment.max_sequences = 3;
  return assignment;
}

// A stage that computes, loaded once for all inputs.
struct Target {
  explicit Target(bool whole) : assignment(Assignment(whole)) {
    static const std::string directory =
        WriteTinyCheckpoint("step_header_fuzz_model", {.num_layers = kLayers, .max_context = 64});
    const auto model = OpenModel(directory);
    Check(model.ok(), "the tiny model opens");
    facts = {.vocab_size = model->spec.vocab_size,
             .hidden_size = model->spec.hidden_size,
             .max_context = model->spec.max_context};
    auto loaded = Stage::Load(*backend, model->spec, *model->checkpoint,
                              {.layers = assignment.layers(),
                               .first = whole,
                               .max_step_tokens = assignment.max_step_tokens,
                               .max_sequences = assignment.max_sequences},
                              {});
    Check(loaded.ok(), "the tiny model loads");
    stage = *std::move(loaded);
  }

  StageAssignment assignment;
  ModelFacts facts;
  std::unique_ptr<Backend> backend = MakeReferenceBackend();
  std::unique_ptr<Stage> stage;
};

// One input's worth of a peer.
class Run {
 public:
  explicit Run(Target& target)
      : target_(target), assembler_(static_cast<size_t>(target.facts.hidden_size * 8)) {
    Check(target_.stage->AllocateKv(kBlocks).ok(), "blocks can be had again");
    session_.OnEvent(StageStarted{target_.assignment, kBlocks, target_.facts});
  }

  // All return false when the stream would be ended.
  bool Take(StageEvent event) {
    Give(std::move(event));
    return session_.started();
  }

  bool Control(const std::string& bytes) {
    v1::ControlMessage message;
    if (!message.ParseFromString(bytes)) return false;
    absl::StatusOr<ControlMessage> control = FromProto(message);
    if (!control.ok()) return false;
    if (auto* open = std::get_if<OpenSequence>(&*control)) Give(std::move(*open));
    if (auto* close = std::get_if<CloseSequence>(&*control)) Give(*close);
    if (auto* step = std::get_if<StepHeader>(&*control)) Give(std::move(*step));
    return session_.started();
  }

  bool Hidden(const std::string& bytes) {
    v1::HiddenFrame frame;
    if (!frame.ParseFromString(bytes)) return false;
    const absl::StatusOr<bool> complete = assembler_.Add(frame);
    if (!complete.ok()) return false;
    if (*complete) Give(assembler_.Take());
    return session_.started();
  }

 private:
  void Give(StageEvent event) {
    for (StageEffect& effect : session_.OnEvent(std::move(event))) {
      std::visit([this](auto& e) { Apply(e); }, effect);
    }
    Check(session_.num_held_steps() <= 4 && session_.num_held_hidden() <= 4,
          "two stages and two spare steps at most");
    Check(session_.num_open_sequences() <= 12, "open sequences are bounded");
  }

  void Apply(OpenSequence& open) {
    const absl::Status status = target_.stage->Open(open);
    if (!status.ok()) Give(OpenFailed{kEpoch, status});
  }
  void Apply(CloseSequence& close) { target_.stage->Close(close.id); }
  void Apply(ComputeStep& compute) {
    StageOutput output;
    StepComputed done{.epoch = kEpoch, .step_id = compute.header.step_id};
    done.status = target_.stage->RunStep(compute.header, compute.hidden, output);
    if (done.status.ok()) {
      size_t wanted = 0;
      for (const SequenceStep& step : compute.header.sequences) {
        wanted += step.want != StepWant::kNone ? 1 : 0;
      }
      Check(output.sampled.size() == wanted, "each wish is answered");
    }
    done.sampled = std::move(output.sampled);
    Give(std::move(done));
  }
  void Apply(HiddenStates&) { Check(false, "the last stage sends no hidden states"); }
  void Apply(StepResult& result) {
    Check(result.step_id == ++last_result_, "results come in order without gaps");
  }
  void Apply(StageFault& fault) {
    Check(fault.epoch == kEpoch && !fault.reason.empty(), "a fault says what and when");
  }

  Target& target_;
  StageSession session_;
  HiddenAssembler assembler_;
  uint64_t last_result_ = 0;
};

// Makes messages of small numbers.
class Script {
 public:
  Script(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool done() const { return at_ >= size_; }

  StageEvent Next() {
    switch (Below(6)) {
      case 0: {
        OpenSequence open{.id = Below(5), .seed = Below(2), .tokens = Tokens(Below(20))};
        open.num_prompt_tokens = static_cast<uint32_t>(Below(4));
        open.sampling.temperature = static_cast<float>(Below(3));
        open.sampling.logprobs = static_cast<int>(Below(4));
        return open;
      }
      case 1:
        return CloseSequence{Below(5)};
      case 2:
        return HiddenStates{kEpoch, ++hidden_id_, std::vector<float>(Below(10) * 32, 0.25f)};
      default:
        return Step();
    }
  }

 private:
  uint64_t Below(uint64_t limit) { return done() ? 0 : data_[at_++] % limit; }

  std::vector<TokenId> Tokens(uint64_t count) {
    return std::vector<TokenId>(count, Below(8) == 0 ? static_cast<TokenId>(Below(256)) + 10 : 1);
  }

  StepHeader Step() {
    StepHeader header{.epoch = kEpoch, .step_id = ++step_id_};
    for (uint64_t i = 0, count = 1 + Below(2); i < count; ++i) {
      SequenceStep step{.id = Below(5), .first_position = static_cast<int>(Below(20))};
      step.tokens = Tokens(1 + Below(8));
      step.want = static_cast<StepWant>(Below(3));
      for (uint64_t block = 0, blocks = Below(3); block < blocks; ++block) {
        step.blocks.push_back({0, {static_cast<BlockId>(Below(kBlocks + 1))}});
      }
      header.sequences.push_back(std::move(step));
    }
    return header;
  }

  const uint8_t* data_;
  const size_t size_;
  size_t at_ = 0;
  uint64_t step_id_ = 0;
  uint64_t hidden_id_ = 0;
};

std::string Framed(char kind, const std::string& bytes) {
  return std::string{kind, static_cast<char>(bytes.size() & 0xff),
                     static_cast<char>(bytes.size() >> 8)} +
         bytes;
}
std::string Framed(const ControlMessage& message) {
  return Framed(0, ToProto(message).SerializeAsString());
}

OpenSequence Opened(SequenceId id) {
  OpenSequence open{.id = id, .seed = 5, .tokens = {1, 2, 3}, .num_prompt_tokens = 3};
  open.sampling.seed = 5;
  open.sampling.logprobs = 2;
  return open;
}

StepHeader Header(uint64_t step_id, SequenceStep step) {
  return {.epoch = kEpoch, .step_id = step_id, .sequences = {std::move(step)}};
}

}  // namespace

std::vector<std::string> SeedInputs() {
  const std::string open = Framed(ControlMessage(Opened(1)));
  const StepHeader prompt =
      Header(1, {.id = 1, .tokens = {1, 2, 3}, .blocks = {{0, {4}}}, .want = StepWant::kSample});
  const StepHeader next =
      Header(2, {.id = 1, .first_position = 3, .tokens = {7}, .want = StepWant::kSample});
  const StepHeader score =
      Header(1, {.id = 1, .tokens = {1, 2}, .blocks = {{0, {0}}}, .want = StepWant::kScore});
  std::string hidden;
  for (const v1::HiddenFrame& frame :
       ToFrames({kEpoch, 1, std::vector<float>(size_t{3} * 32, 0.5f)})) {
    hidden += Framed(1, frame.SerializeAsString());
  }
  const std::string steps = Framed(ControlMessage(prompt)) + Framed(ControlMessage(next));
  const std::string close = Framed(ControlMessage(CloseSequence{1}));
  return {std::string(1, '\0') + open + steps + close + open,
          std::string(1, '\0') + open + Framed(ControlMessage(score)) + close,
          std::string(1, '\0') + open + Framed(ControlMessage(Opened(2))) + steps,
          std::string(1, '\1') + open + Framed(ControlMessage(prompt)) + hidden + close,
          std::string(1, '\1') + hidden + open + steps,
          // open 1 with 3 tokens of which 3 are the prompt; two steps of it
          std::string("\2\0\1\0\3\1\3\1\0\3\0\1\0\2\1\1\1\2\3\0\1\3\0\1\1\0", 26),
          std::string("\3\0\1\0\3\1\3\1\0\2\3\3\0\1\0\2\1\1\1\2", 20)};
}

}  // namespace sauva

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static sauva::Target whole(true);
  static sauva::Target half(false);
  if (size == 0) return 0;
  sauva::Run run(data[0] % 2 == 0 ? whole : half);
  if ((data[0] & 2) != 0) {
    sauva::Script script(data + 1, size - 1);
    while (!script.done() && run.Take(script.Next())) continue;
    return 0;
  }
  size_t at = 1;
  while (at + 3 <= size) {
    const bool hidden = data[at] % 2 != 0;
    const size_t length = std::min<size_t>(data[at + 1] + 256u * data[at + 2], size - at - 3);
    const std::string bytes(reinterpret_cast<const char*>(data) + at + 3, length);
    at += 3 + length;
    if (!(hidden ? run.Hidden(bytes) : run.Control(bytes))) break;
  }
  return 0;
}
