#include "cli/bench_model.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "engine/local_pipeline.h"
#include "kernels/bench/device_bencher.h"
#include "kernels/factory.h"
#include "model/expected_tensors.h"
#include "model/mapped_file.h"
#include "model/model.h"
#include "model/model_files.h"
#include "model/random_checkpoint.h"
#include "model/tensor_names.h"

namespace sauva {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Bytes of one matrix that a step reads, and whether int8 activations meet it.
struct MatrixCost {
  int64_t bytes = 0;
  bool quantized = false;
};

MatrixCost CostOf(const Model& model, const ExpectedTensor& tensor, LoadFormat format) {
  const int64_t elements = tensor.shape[0] * tensor.shape[1];
  if (const auto outline = model.checkpoint->FindQuantized(tensor.name)) {
    if (format == LoadFormat::kF32) return {elements * 4, false};
    return {outline->stored_bytes, true};
  }
  if (format != LoadFormat::kStored && format != LoadFormat::kF32) {
    return {RoundedBytes(tensor.shape[0], tensor.shape[1], format), true};
  }
  const auto stored = model.checkpoint->Find(tensor.name);
  return {stored.ok() ? static_cast<int64_t>(stored->bytes.size()) : 0, false};
}

// What a step of so many tokens costs at least, of which one row a sequence is sampled.
class StepCost {
 public:
  StepCost(const Model& model, LoadFormat format) {
    const std::string& head = model.spec.tied_head ? tensor_names::kEmbedding : tensor_names::kHead;
    for (const ExpectedTensor& tensor : ExpectedTensors(model.spec)) {
      if (tensor.shape.size() != 2) continue;
      const bool is_head = tensor.name == head;
      if (tensor.name == tensor_names::kEmbedding && !is_head) continue;
      const MatrixCost cost =
          CostOf(model, tensor, is_head ? HeadFormat(format, model.spec) : format);
      const double operations = 2.0 * static_cast<double>(tensor.shape[0] * tensor.shape[1]);
      bytes_ += cost.bytes;
      double& sum = is_head ? (cost.quantized ? head_.int8_operations : head_.float_operations)
                            : (cost.quantized ? body_.int8_operations : body_.float_operations);
      sum += operations;
    }
  }

  int64_t bytes() const { return bytes_; }
  Work Of(int tokens, int sampled) const {
    return {.bytes = static_cast<double>(bytes_),
            .int8_operations = body_.int8_operations * tokens + head_.int8_operations * sampled,
            .float_operations = body_.float_operations * tokens + head_.float_operations * sampled};
  }

 private:
  int64_t bytes_ = 0;
  Work body_;  // operations of one token
  Work head_;
};

Work Times(const Work& work, int steps) {
  return {work.bytes * steps, work.int8_operations * steps, work.float_operations * steps};
}

// Sequences of random tokens, other ones each time.
class RandomSequences {
 public:
  explicit RandomSequences(int vocab_size) : token_(0, vocab_size - 1) {}

  std::vector<NewSequence> Make(int rows, int prompt_tokens) {
    std::vector<NewSequence> sequences(static_cast<size_t>(rows));
    for (NewSequence& sequence : sequences) {
      for (int i = 0; i < prompt_tokens; ++i) sequence.prompt.push_back(token_(random_));
      sequence.sampling.temperature = 0;
      sequence.sampling.seed = 1;
      sequence.sampling.ignore_eos = true;
    }
    return sequences;
  }

 private:
  std::mt19937 random_{1};
  std::uniform_int_distribution<TokenId> token_;
};

// Of reading the weights' files as plainly as can be, the second time: from the page cache.
double ReadSeconds(const std::string& directory) {
  double seconds = 0;
  std::vector<char> buffer(size_t{1} << 20);
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() != ".safetensors") continue;
    for (int pass = 0; pass < 2; ++pass) {
      std::ifstream file(entry.path(), std::ios::binary);
      const Clock::time_point start = Clock::now();
      while (file.rdbuf()->sgetn(buffer.data(), static_cast<int64_t>(buffer.size())) > 0) {
      }
      if (pass == 1) seconds += SecondsSince(start);
    }
  }
  return seconds;
}

class ModelBench {
 public:
  ModelBench(const ModelBenchOptions& options, const Model& model, Bencher& bencher,
             LocalPipeline& pipeline)
      : options_(options),
        cost_(model, options.weight_format),
        sequences_(model.spec.vocab_size),
        bencher_(bencher),
        pipeline_(pipeline) {}

  const StepCost& cost() const { return cost_; }
  absl::StatusOr<ModelBenchLine> Prefill() {
    const int tokens = options_.prompt_tokens;
    ModelBenchLine line{.name = "prefill", .rows = tokens, .tokens = tokens};
    line.measurement = bencher_.Measure(cost_.Of(tokens, 1),
                                        [&] { return Generate(sequences_.Make(1, tokens), 1); });
    RETURN_IF_ERROR(status_);
    return line;
  }

  // A prompt of one token makes every step one of `rows` tokens. A deeper one is computed once:
  // then the cache has all but its end, whose seconds are taken off.
  absl::StatusOr<ModelBenchLine> Decode(int rows) {
    const int steps = options_.decode_steps;
    ModelBenchLine line{.name = "decode", .rows = rows, .tokens = rows * steps};
    const auto deep = sequences_.Make(rows, std::max(options_.depth, 1));
    if (options_.depth > 0) Generate(deep, 1);
    line.measurement = bencher_.Measure(Times(cost_.Of(rows, rows), steps), [&] {
      if (options_.depth == 0) return Generate(sequences_.Make(rows, 1), steps);
      const double end = Generate(deep, 1, options_.depth - kKvBlockTokens);
      return Generate(deep, steps + 1, options_.depth - kKvBlockTokens) - end;
    });
    RETURN_IF_ERROR(status_);
    return line;
  }

 private:
  // Each sequence must find at least `cached` tokens in the cache.
  double Generate(std::vector<NewSequence> sequences, int max_tokens, int cached = 0) {
    for (NewSequence& sequence : sequences) sequence.sampling.max_tokens = max_tokens;
    const Clock::time_point start = Clock::now();
    const auto completions = pipeline_.Generate(std::move(sequences));
    const double seconds = SecondsSince(start);
    status_.Update(completions.status());
    if (!completions.ok()) return seconds;
    for (const LocalPipeline::Completion& completion : *completions) {
      if (completion.num_cached_tokens >= cached) continue;
      status_.Update(absl::InternalError(absl::StrCat(
          "the cache has ", completion.num_cached_tokens, " of ", cached, " tokens of the depth")));
    }
    return seconds;
  }

  const ModelBenchOptions& options_;
  const StepCost cost_;
  RandomSequences sequences_;
  Bencher& bencher_;
  LocalPipeline& pipeline_;
  absl::Status status_;
};

// The model of a configuration alone. Errors: those of ReadModelFiles and ParseSpec.
absl::StatusOr<Model> RandomModel(const std::string& directory) {
  Model model;
  ASSIGN_OR_RETURN(model.files, ReadModelFiles(directory));
  ASSIGN_OR_RETURN(model.spec, ParseSpec(model.files));
  model.checkpoint = std::make_unique<RandomCheckpoint>(model.spec);
  return model;
}

LocalPipelineOptions PipelineOptions(const ModelBenchOptions& options) {
  const int most_rows = *std::max_element(options.rows.begin(), options.rows.end());
  const int decoded = options.depth + options.decode_steps + 2;
  const int context = std::max(options.prompt_tokens + 1, decoded);
  const int blocks = (decoded + kKvBlockTokens - 1) / kKvBlockTokens;
  return {.num_stages = options.stages,
          .weight_format = options.weight_format,
          .kv_type = options.kv_type,
          .max_context = context,
          .max_step_tokens = std::max(std::clamp(options.prompt_tokens, 16, 512), most_rows),
          .max_sequences = most_rows,
          .num_kv_blocks = std::max(context / kKvBlockTokens + 2, most_rows * blocks),
          .prefix_cache = options.depth > 0};
}

}  // namespace

absl::StatusOr<ModelBenchResult> RunModelBench(
    const ModelBenchOptions& options, const std::function<void(const ModelBenchResult&)>& on_news) {
  ModelBenchResult result;
  result.threads = options.threads > 0 ? options.threads : UsableCores();
  ASSIGN_OR_RETURN(const Model model,
                   options.random_weights ? RandomModel(options.model) : OpenModel(options.model));
  result.read_seconds = ReadSeconds(options.model);
  const Clock::time_point start = Clock::now();
  const auto make_backend = [&] {
    return MakeBackend(options.device, result.threads, 0, {.arithmetic = options.arithmetic});
  };
  ASSIGN_OR_RETURN(
      const std::unique_ptr<LocalPipeline> pipeline,
      LocalPipeline::Create(model.spec, *model.checkpoint, make_backend, PipelineOptions(options)));
  result.load_seconds = SecondsSince(start);
  ASSIGN_OR_RETURN(const std::unique_ptr<Bencher> bencher,
                   MakeBencher({.device = options.device,
                                .arithmetic = options.arithmetic,
                                .threads = result.threads,
                                .read_bytes = options.probe_bytes},
                               options.repeats));
  ModelBench bench(options, model, *bencher, *pipeline);
  result.weight_bytes = bench.cost().bytes();
  on_news(result);
  if (options.prompt_tokens > 0) {
    ASSIGN_OR_RETURN(ModelBenchLine line, bench.Prefill());
    result.lines.push_back(std::move(line));
    on_news(result);
  }
  for (const int rows : options.rows) {
    ASSIGN_OR_RETURN(ModelBenchLine line, bench.Decode(rows));
    result.lines.push_back(std::move(line));
    on_news(result);
  }
  return result;
}

std::string ModelBenchNews(const ModelBenchResult& result) {
  if (result.lines.empty()) {
    return absl::StrFormat(
        "%d threads, %.1f MB a step; loaded in %.2f s, its files are read in %.2f s",
        result.threads, static_cast<double>(result.weight_bytes) / 1e6, result.load_seconds,
        result.read_seconds);
  }
  const ModelBenchLine& line = result.lines.back();
  const Measurement& measured = line.measurement;
  return absl::StrFormat(
      "%-8s %4d rows %9.2f tokens/s  %5.1f %% of %-4s (%.1f-%.1f)  read %.1f GB/s, "
      "int8 %.0f GOP/s, %s %.0f GFLOP/s",
      line.name, line.rows, line.tokens_per_second(), 100 * measured.median_share(), measured.limit,
      100 * measured.shares.front(), 100 * measured.shares.back(),
      measured.limits.read_bytes_per_second / 1e9, measured.limits.int8_operations_per_second / 1e9,
      measured.limits.floats, measured.limits.float_operations_per_second / 1e9);
}

std::string ModelBenchJson(const ModelBenchResult& result) {
  nlohmann::ordered_json json = {{"threads", result.threads},
                                 {"weight_bytes", result.weight_bytes},
                                 {"load_seconds", result.load_seconds},
                                 {"read_seconds", result.read_seconds}};
  for (const ModelBenchLine& line : result.lines) {
    const Measurement& measured = line.measurement;
    json["lines"].push_back(
        {{"name", line.name},
         {"rows", line.rows},
         {"tokens_per_second", line.tokens_per_second()},
         {"limit", measured.limit},
         {"share", measured.median_share()},
         {"share_range", {measured.shares.front(), measured.shares.back()}},
         {"seconds", measured.seconds},
         {"read_bytes_per_second", measured.limits.read_bytes_per_second},
         {"int8_operations_per_second", measured.limits.int8_operations_per_second},
         {"float_operations_per_second", measured.limits.float_operations_per_second}});
  }
  return json.dump();
}

}  // namespace sauva
