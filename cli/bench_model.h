#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/formats.h"
#include "kernels/bench/measurement.h"
#include "kernels/cuda_access.h"
#include "kernels/factory.h"

namespace sauva {

// What `sauva bench --model` measures.
struct ModelBenchOptions {
  std::string model;            // a model's directory
  bool random_weights = false;  // the directory has none: take random ones of f16
  LoadFormat weight_format = LoadFormat::kStored;
  DType kv_type = DType::kF16;
  std::string device = "cpu";
  CudaArithmetic arithmetic = CudaArithmetic::kFast;
  int threads = 0;  // 0: all usable cores
  int stages = 1;   // in this process, one after the other
  int prompt_tokens = 512;
  int decode_steps = 32;
  std::vector<int> rows = {1, 16};  // sequences decoded together
  int depth = 0;                    // tokens before the decoded ones
  int repeats = 5;
  int64_t probe_bytes = int64_t{640} << 20;  // read to know the bandwidth
};

// One line of the result: tokens/s of a kind of work and the share of the limit.
struct ModelBenchLine {
  std::string name;  // "prefill" or "decode"
  int rows = 1;      // tokens of a step
  int tokens = 0;    // of one repetition
  Measurement measurement;

  double tokens_per_second() const { return tokens / measurement.median_seconds(); }
};

struct ModelBenchResult {
  int threads = 0;
  double load_seconds = 0;   // until the first step could run
  double read_seconds = 0;   // of reading its files from the page cache
  int64_t weight_bytes = 0;  // of what a decode step reads, as published
  std::vector<ModelBenchLine> lines;
};

// Prefill and decode of a whole model in this process. The bytes of a step are those of the
// checkpoint's matrices without the embedding, as published; of a format rounded at load,
// those in memory. Operations are those of the layers' matrices.
// `on_news` hears of the result once the model is loaded and again with each line, so that an
// error later loses none.
// Errors: those of OpenModel, MakeBackend and LocalPipeline.
absl::StatusOr<ModelBenchResult> RunModelBench(
    const ModelBenchOptions& options,
    const std::function<void(const ModelBenchResult&)>& on_news = [](const ModelBenchResult&) {});

// A line of text about the newest of it: how the model was loaded, or the last line.
std::string ModelBenchNews(const ModelBenchResult& result);
std::string ModelBenchJson(const ModelBenchResult& result);

}  // namespace sauva
