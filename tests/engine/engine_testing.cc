#include "tests/engine/engine_testing.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <utility>

namespace sauva {
namespace {

class LogitsRecorder : public Backend {
 public:
  LogitsRecorder(std::unique_ptr<Backend> backend, std::vector<std::vector<float>>& log)
      : backend_(std::move(backend)), log_(log) {}

  std::string backend_class() const override { return backend_->backend_class(); }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override {
    return backend_->Allocate(bytes);
  }
  absl::StatusOr<std::unique_ptr<Weight>> PrepareWeight(const WeightSource& source,
                                                        WeightFormat format) override {
    return backend_->PrepareWeight(source, format);
  }
  absl::StatusOr<std::unique_ptr<KvCache>> AllocateKv(const KvShape& shape) override {
    return backend_->AllocateKv(shape);
  }
  absl::StatusOr<std::unique_ptr<RopeTable>> MakeRopeTable(const RopeShape& shape) override {
    return backend_->MakeRopeTable(shape);
  }
  absl::Status Reserve(const StepLimits& limits, int64_t max_columns, int vocab_size) override {
    return backend_->Reserve(limits, max_columns, vocab_size);
  }
  void UploadStep(const StepTable& step) override { backend_->UploadStep(step); }
  void GatherRows(const Weight& table, float scale, Rows out) override {
    backend_->GatherRows(table, scale, out);
  }
  void SelectSampledRows(Rows x, Rows out) override { backend_->SelectSampledRows(x, out); }
  void Norm(const NormArgs& args) override { backend_->Norm(args); }
  void MatMul(const MatMulArgs& args) override { backend_->MatMul(args); }
  void Rope(const RopeArgs& args) override { backend_->Rope(args); }
  void WriteKv(const WriteKvArgs& args) override { backend_->WriteKv(args); }
  void Attention(const AttentionArgs& args) override { backend_->Attention(args); }
  void Activate(const ActivationArgs& args) override { backend_->Activate(args); }
  void Add(Rows x, Rows y) override { backend_->Add(x, y); }
  void Sample(Rows logits, std::span<const SampleRow> rows,
              std::span<SampleResult> results) override {
    for (int i = 0; i < logits.rows; ++i) {
      std::vector<float> row(static_cast<size_t>(logits.columns));
      backend_->CopyToHost({logits.row(i), 1, logits.columns, logits.stride}, row.data());
      log_.push_back(std::move(row));
    }
    backend_->Sample(logits, rows, results);
  }
  void CopyToHost(Rows from, float* to) override { backend_->CopyToHost(from, to); }
  void CopyFromHost(const float* from, Rows to) override { backend_->CopyFromHost(from, to); }
  void Wait() override { backend_->Wait(); }

 private:
  std::unique_ptr<Backend> backend_;
  std::vector<std::vector<float>>& log_;
};

template <class T>
std::vector<T> Elements(const std::string& bytes, size_t first, size_t last) {
  std::vector<T> values((last - first) / sizeof(T));
  std::memcpy(values.data(), bytes.data() + first, last - first);
  return values;
}

}  // namespace

Model OpenOrDie(const std::string& directory) {
  absl::StatusOr<Model> model = OpenModel(directory);
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", model.status().ToString().c_str());
    std::abort();
  }
  return *std::move(model);
}

LocalPipeline::BackendFactory ReferenceFactory() {
  return [] { return MakeReferenceBackend(); };
}

LocalPipeline::BackendFactory CpuFactory(int threads, InstructionSet isa) {
  return [=] { return MakeCpuBackend({.threads = threads, .isa = isa}); };
}

NewSequence Continue(std::vector<TokenId> prompt, int max_tokens) {
  NewSequence sequence;
  sequence.prompt = std::move(prompt);
  sequence.sampling.temperature = 0;
  sequence.sampling.seed = 0;
  sequence.sampling.max_tokens = max_tokens;
  sequence.sampling.ignore_eos = true;
  return sequence;
}

std::vector<TokenId> RandomTokens(int count, int vocab_size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<TokenId> tokens;
  for (int i = 0; i < count; ++i) {
    tokens.push_back(static_cast<TokenId>(random() % static_cast<uint64_t>(vocab_size)));
  }
  return tokens;
}

std::unique_ptr<Backend> RecordLogits(std::unique_ptr<Backend> backend,
                                      std::vector<std::vector<float>>& log) {
  return std::make_unique<LogitsRecorder>(std::move(backend), log);
}

std::map<std::string, FixtureTensor> ReadFixture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  const std::string bytes = content.str();
  uint64_t header_size = 0;
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  const auto header = nlohmann::json::parse(bytes.substr(8, header_size));
  std::map<std::string, FixtureTensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    FixtureTensor tensor{.shape = entry["shape"].get<std::vector<int64_t>>()};
    const size_t first = 8 + header_size + entry["data_offsets"][0].get<size_t>();
    const size_t last = 8 + header_size + entry["data_offsets"][1].get<size_t>();
    if (entry["dtype"] == "F32") tensor.values = Elements<float>(bytes, first, last);
    if (entry["dtype"] == "I64") tensor.integers = Elements<int64_t>(bytes, first, last);
    tensors[name] = std::move(tensor);
  }
  return tensors;
}

std::string GoldenPath(const std::string& name) {
  return std::string(SAUVA_SOURCE_DIR) + "/tests/golden/" + name;
}

}  // namespace sauva
