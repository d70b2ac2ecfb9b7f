#include "tests/cuda/copying_backend.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"

namespace sauva::testing {
namespace {

// What one op takes and gives, in the backend's memory.
class Mirror {
 public:
  explicit Mirror(Backend& backend) : backend_(backend) {}

  // The same host rows have the same mirror.
  Rows In(Rows host) {
    if (host.data == nullptr || host.rows == 0) return host;
    for (const Pair& pair : pairs_) {
      if (pair.host.data == host.data) return pair.device;
    }
    const Rows device = Allocate(host);
    const std::vector<float> packed = Packed(host);
    backend_.CopyFromHost(packed.data(), device);
    backend_.Wait();
    pairs_.push_back({host, device});
    return device;
  }
  std::span<const float> In(std::span<const float> host) {
    if (host.empty()) return host;
    const int columns = static_cast<int>(host.size());
    const Rows device = Allocate({.rows = 1, .columns = columns});
    backend_.CopyFromHost(host.data(), device);
    backend_.Wait();
    return {device.data, host.size()};
  }
  // Copies the mirror of `host` back.
  void Out(Rows host) {
    for (const Pair& pair : pairs_) {
      if (pair.host.data != host.data) continue;
      std::vector<float> values(static_cast<size_t>(host.rows) * static_cast<size_t>(host.columns));
      backend_.CopyToHost(pair.device, values.data());
      const float* from = values.data();
      for (int row = 0; row < host.rows; ++row, from += host.columns) {
        std::copy_n(from, host.columns, host.row(row));
      }
    }
  }

 private:
  struct Pair {
    Rows host, device;
  };

  Rows Allocate(Rows like) {
    constexpr int kPadding = 3;  // rows that begin at odd places
    const int64_t stride = like.columns + kPadding;
    auto buffer = backend_.Allocate(like.rows * stride * int64_t{sizeof(float)});
    Check(buffer.ok(), "tests are small");
    buffers_.push_back(*std::move(buffer));
    return {.data = reinterpret_cast<float*>(buffers_.back()->data()),
            .rows = like.rows,
            .columns = like.columns,
            .stride = stride};
  }
  static std::vector<float> Packed(Rows host) {
    std::vector<float> values;
    for (int row = 0; row < host.rows; ++row) {
      values.insert(values.end(), host.row(row), host.row(row) + host.columns);
    }
    return values;
  }

  Backend& backend_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
  std::vector<Pair> pairs_;
};

class CopyingBackend : public Backend {
 public:
  explicit CopyingBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}

  std::string backend_class() const override { return inner_->backend_class(); }
  int64_t used_bytes() const override { return inner_->used_bytes(); }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override {
    return inner_->Allocate(bytes);
  }
  absl::StatusOr<std::unique_ptr<Weight>> PrepareWeight(const WeightSource& source,
                                                        WeightFormat format) override {
    return inner_->PrepareWeight(source, format);
  }
  absl::StatusOr<std::unique_ptr<KvCache>> AllocateKv(const KvShape& shape) override {
    return inner_->AllocateKv(shape);
  }
  absl::StatusOr<std::unique_ptr<RopeTable>> MakeRopeTable(const RopeShape& shape) override {
    return inner_->MakeRopeTable(shape);
  }
  absl::Status Reserve(const StepLimits& limits, int64_t max_columns, int vocab_size) override {
    return inner_->Reserve(limits, max_columns, vocab_size);
  }
  void UploadStep(const StepTable& step) override { inner_->UploadStep(step); }

  void GatherRows(const Weight& table, float scale, Rows out) override {
    Mirror mirror(*inner_);
    inner_->GatherRows(table, scale, mirror.In(out));
    mirror.Out(out);
  }
  void SelectSampledRows(Rows x, Rows out) override {
    Mirror mirror(*inner_);
    const Rows from = mirror.In(x);
    inner_->SelectSampledRows(from, mirror.In(out));
    mirror.Out(out);
  }
  void Norm(const NormArgs& args) override {
    Mirror mirror(*inner_);
    NormArgs inner = args;
    inner.x = mirror.In(args.x);
    inner.gain = mirror.In(args.gain);
    inner.bias = mirror.In(args.bias);
    inner.out = mirror.In(args.out);
    inner_->Norm(inner);
    mirror.Out(args.out);
  }
  void MatMul(const MatMulArgs& args) override {
    Mirror mirror(*inner_);
    MatMulArgs inner = args;
    inner.x = mirror.In(args.x);
    inner.bias = mirror.In(args.bias);
    inner.out = mirror.In(args.out);
    inner_->MatMul(inner);
    mirror.Out(args.out);
  }
  void Rope(const RopeArgs& args) override {
    Mirror mirror(*inner_);
    RopeArgs inner = args;
    inner.x = mirror.In(args.x);
    inner_->Rope(inner);
    mirror.Out(args.x);
  }
  void WriteKv(const WriteKvArgs& args) override {
    Mirror mirror(*inner_);
    WriteKvArgs inner = args;
    inner.keys = mirror.In(args.keys);
    inner.values = mirror.In(args.values);
    inner_->WriteKv(inner);
    inner_->CopyToHost({}, nullptr);  // waits: the mirror is freed next
  }
  void Attention(const AttentionArgs& args) override {
    Mirror mirror(*inner_);
    AttentionArgs inner = args;
    inner.queries = mirror.In(args.queries);
    inner.out = mirror.In(args.out);
    inner_->Attention(inner);
    mirror.Out(args.out);
  }
  void Activate(const ActivationArgs& args) override {
    Mirror mirror(*inner_);
    ActivationArgs inner = args;
    inner.gate = mirror.In(args.gate);
    inner.up = mirror.In(args.up);
    inner.out = mirror.In(args.out);
    inner_->Activate(inner);
    mirror.Out(args.out);
  }
  void Add(Rows x, Rows y) override {
    Mirror mirror(*inner_);
    const Rows to = mirror.In(x);
    inner_->Add(to, mirror.In(y));
    mirror.Out(x);
  }
  void Sample(Rows logits, std::span<const SampleRow> rows,
              std::span<SampleResult> results) override {
    Mirror mirror(*inner_);
    inner_->Sample(mirror.In(logits), rows, results);
  }
  void CopyToHost(Rows from, float* to) override {
    for (int row = 0; row < from.rows; ++row) to = std::copy_n(from.row(row), from.columns, to);
  }
  void CopyFromHost(const float* from, Rows to) override {
    for (int row = 0; row < to.rows; ++row, from += to.columns) {
      std::copy_n(from, to.columns, to.row(row));
    }
  }

 private:
  const std::unique_ptr<Backend> inner_;
};

}  // namespace

std::unique_ptr<Backend> MakeCopyingBackend(std::unique_ptr<Backend> inner) {
  return std::make_unique<CopyingBackend>(std::move(inner));
}

}  // namespace sauva::testing
