#include "engine/stage_weights.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "kernels/weight_source.h"
#include "model/tensor_names.h"

namespace sauva {

namespace {

// [rows, columns] by input column.
std::vector<float> DequantizeAll(const QuantizedMatrix& matrix) {
  std::vector<float> numbers(matrix.codes.size());
  for (int64_t row = 0; row < matrix.rows; ++row) {
    for (int64_t i = 0; i < matrix.columns; ++i) {
      const int64_t column =
          matrix.column_order.empty() ? i : matrix.column_order[static_cast<size_t>(i)];
      numbers[static_cast<size_t>(row * matrix.columns + column)] = Dequantize(matrix, row, i);
    }
  }
  return numbers;
}

}  // namespace

class StageWeightsLoader {
 public:
  StageWeightsLoader(Backend& backend, const ModelSpec& spec, const Checkpoint& checkpoint,
                     LoadFormat format)
      : backend_(backend), spec_(spec), checkpoint_(checkpoint), format_(format) {}

  // Vectors are read at once; matrices are only described and then loaded by several threads.
  absl::StatusOr<StageWeights> Load(const StageOptions& options,
                                    const std::function<void(int)>& progress) {
    weights_.first_layer_ = options.layers.first;
    weights_.layers_.resize(static_cast<size_t>(options.layers.size()));
    if (options.first) {
      Plan(weights_.embedding_, Embedding(LoadFormat::kStored));
    }
    // Before the layers, so that no thread is left with so large a matrix at the end.
    if (options.last) RETURN_IF_ERROR(LoadHead());
    for (int layer = options.layers.first; layer < options.layers.last; ++layer) {
      RETURN_IF_ERROR(LoadLayer(layer));
      matrices_of_layers_.push_back(matrices_.size());
    }
    RETURN_IF_ERROR(LoadMatrices(progress));
    return std::move(weights_);
  }

 private:
  struct MatrixShape {
    int64_t out = 0;
    int64_t in = 0;
  };

  // A matrix to be loaded, and where it goes.
  struct Matrix {
    std::string name;
    MatrixShape shape;
    LoadFormat format = LoadFormat::kStored;
  };
  struct Planned {
    Matrix matrix;
    std::unique_ptr<Weight>* to = nullptr;
  };

  void Plan(std::unique_ptr<Weight>& to, Matrix matrix) {
    matrices_.push_back({std::move(matrix), &to});
  }

  // Loads what is planned, in order, by as many threads as the backend allows; the caller is
  // one of them and the only one that tells of progress. Memory: one matrix a thread besides
  // the backend's own form, kMostLoadingBytes in all unless one alone takes more.
  absl::Status LoadMatrices(const std::function<void(int)>& progress) {
    statuses_.resize(matrices_.size());
    std::vector<std::thread> helpers;
    for (int i = 1; i < NumThreads(); ++i) {
      helpers.emplace_back([this] {
        std::vector<uint8_t> codes;
        while (LoadNext(codes)) {
        }
      });
    }
    size_t told = 0;
    const auto tell = [&] {
      const size_t loaded = loaded_.load(std::memory_order_acquire);
      for (; told < matrices_of_layers_.size() && matrices_of_layers_[told] <= loaded; ++told) {
        if (progress) progress(static_cast<int>(told) + 1);
      }
    };
    std::vector<uint8_t> codes;
    while (LoadNext(codes)) tell();
    for (std::thread& helper : helpers) helper.join();
    for (const absl::Status& status : statuses_) RETURN_IF_ERROR(status);
    tell();
    for (const Planned& planned : matrices_) weights_.size_bytes_ += (*planned.to)->size_bytes();
    return absl::OkStatus();
  }

  // A matrix on its way takes its codes and tables, or its numbers widened to f32.
  int NumThreads() const {
    int64_t largest = 1;
    for (const Planned& planned : matrices_) {
      const int64_t bytes = planned.matrix.format == LoadFormat::kF32 ? 5 : 2;
      largest = std::max(largest, planned.matrix.shape.out * planned.matrix.shape.in * bytes);
    }
    const int64_t most = std::min(backend_.load_threads(), kMostThreads);
    return static_cast<int>(std::clamp<int64_t>(kMostLoadingBytes / largest, 1, most));
  }

  // False when there is nothing left to load, or something failed. `codes` is memory for the codes
  // of one matrix after the other, so that its pages are new, and cleared, only once.
  bool LoadNext(std::vector<uint8_t>& codes) {
    const size_t index = next_.fetch_add(1, std::memory_order_relaxed);
    if (index >= matrices_.size() || failed_.load(std::memory_order_relaxed)) return false;
    absl::StatusOr<std::unique_ptr<Weight>> weight = LoadMatrix(matrices_[index].matrix, codes);
    if (!weight.ok()) {
      statuses_[index] = weight.status();
      failed_.store(true, std::memory_order_relaxed);
      return false;
    }
    *matrices_[index].to = *std::move(weight);
    // Matrices end out of order by less than one a thread, so the count lags behind by that.
    loaded_.fetch_add(1, std::memory_order_release);
    return true;
  }

  absl::StatusOr<StoredTensor> Find(const std::string& name, const std::vector<int64_t>& shape) {
    ASSIGN_OR_RETURN(const StoredTensor tensor, checkpoint_.Find(name));
    if (tensor.shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": expected shape [",
                                                     absl::StrJoin(shape, ", "), "], found [",
                                                     absl::StrJoin(tensor.shape, ", "), "]"));
    }
    return tensor;
  }

  absl::StatusOr<std::unique_ptr<Weight>> LoadMatrix(const Matrix& matrix,
                                                     std::vector<uint8_t>& codes) {
    if (checkpoint_.FindQuantized(matrix.name)) return StoredQuantized(matrix, codes);
    const auto& [name, shape, format] = matrix;
    ASSIGN_OR_RETURN(const StoredTensor tensor, Find(name, {shape.out, shape.in}));
    WeightSource source = {.name = name,
                           .dtype = tensor.dtype,
                           .rows = shape.out,
                           .columns = shape.in,
                           .bytes = tensor.bytes};
    ASSIGN_OR_RETURN(std::optional<QuantizedMatrix> rounded,
                     RoundAtLoad(source, format, std::move(codes)));
    if (rounded) source.quantized = &*rounded;
    auto weight = backend_.PrepareWeight(source, WeightFormat::kNative);
    if (rounded) codes = std::move(rounded->codes);
    return weight;
  }

  absl::StatusOr<std::unique_ptr<Weight>> StoredQuantized(const Matrix& wanted,
                                                          std::vector<uint8_t>& codes) {
    const auto& [name, shape, format] = wanted;
    ASSIGN_OR_RETURN(QuantizedMatrix matrix, checkpoint_.ReadQuantized(name, std::move(codes)));
    if (matrix.rows != shape.out || matrix.columns != shape.in) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": expected ", shape.out,
                                                     " x ", shape.in, ", found ", matrix.rows,
                                                     " x ", matrix.columns));
    }
    WeightSource source = {.name = name, .rows = shape.out, .columns = shape.in};
    if (format == LoadFormat::kStored) {
      source.quantized = &matrix;
      absl::StatusOr<std::unique_ptr<Weight>> weight =
          backend_.PrepareWeight(source, WeightFormat::kNative);
      codes = std::move(matrix.codes);
      return weight;
    }
    if (format != LoadFormat::kF32) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name,
                                                     " is already quantized and cannot become ",
                                                     Name(format), "; load it as native"));
    }
    RETURN_IF_ERROR(ValidateQuantizedMatrix(name, matrix));
    const std::vector<float> numbers = DequantizeAll(matrix);
    source.bytes = std::as_bytes(std::span(numbers));
    return backend_.PrepareWeight(source, WeightFormat::kNative);
  }

  Matrix Embedding(LoadFormat format) const {
    return {tensor_names::kEmbedding, {spec_.vocab_size, spec_.hidden_size}, format};
  }

  // A vector as f32 in backend memory.
  absl::Status Vector(const std::string& name, int64_t size, std::span<const float>& vector) {
    ASSIGN_OR_RETURN(const StoredTensor tensor, Find(name, {size}));
    const WeightSource source = {
        .name = name, .dtype = tensor.dtype, .rows = 1, .columns = size, .bytes = tensor.bytes};
    RETURN_IF_ERROR(ValidateWeightSource(source));
    std::vector<float> values(static_cast<size_t>(size));
    ReadRow(source, 0, values);
    ASSIGN_OR_RETURN(std::unique_ptr<Buffer> buffer, backend_.Allocate(size * 4));
    float* data = reinterpret_cast<float*>(buffer->data());
    const int columns = static_cast<int>(size);
    backend_.CopyFromHost(values.data(),
                          {.data = data, .rows = 1, .columns = columns, .stride = size});
    backend_.Wait();
    vector = {data, values.size()};
    weights_.size_bytes_ += buffer->size_bytes();
    weights_.vectors_.push_back(std::move(buffer));
    return absl::OkStatus();
  }

  absl::Status Norm(const std::string& name, const NormSpec& norm, NormVectors& vectors) {
    RETURN_IF_ERROR(Vector(name + ".gain", spec_.hidden_size, vectors.gain));
    if (!norm.bias) return absl::OkStatus();
    return Vector(name + ".bias", spec_.hidden_size, vectors.bias);
  }

  absl::Status Norms(const std::string& name, const LayerSpec& layer, SublayerNorms& norms) {
    RETURN_IF_ERROR(Norm(name, layer.norm, norms.in));
    if (layer.placement != NormPlacement::kSandwich) return absl::OkStatus();
    return Norm(name + "_out", layer.norm, norms.out);
  }

  absl::Status Matmul(const std::string& name, MatrixShape shape, Linear& linear) {
    Plan(linear.weight, {name, shape, format_});
    return absl::OkStatus();
  }

  absl::Status Affine(const std::string& name, MatrixShape shape, Linear& linear) {
    RETURN_IF_ERROR(Matmul(name, shape, linear));
    return Vector(name + ".bias", shape.out, linear.bias);
  }

  absl::Status LoadAttention(int layer, const AttentionSpec& attention, LayerWeights& weights) {
    const int64_t hidden = spec_.hidden_size;
    const int64_t q_size = int64_t{attention.num_heads} * attention.head_dim;
    const int64_t kv_size = int64_t{attention.num_kv_heads} * attention.head_dim;
    const auto qkv = attention.qkv_bias ? &StageWeightsLoader::Affine : &StageWeightsLoader::Matmul;
    const auto out = attention.out_bias ? &StageWeightsLoader::Affine : &StageWeightsLoader::Matmul;
    const auto name = [&](const char* part) { return tensor_names::Layer(layer, part); };
    RETURN_IF_ERROR((this->*qkv)(name("self.q"), {q_size, hidden}, weights.q));
    RETURN_IF_ERROR((this->*qkv)(name("self.k"), {kv_size, hidden}, weights.k));
    RETURN_IF_ERROR((this->*qkv)(name("self.v"), {kv_size, hidden}, weights.v));
    return (this->*out)(name("self.out"), {hidden, q_size}, weights.out);
  }

  absl::Status LoadFeedForward(int layer, const FeedForwardSpec& feed_forward,
                               LayerWeights& weights) {
    const int64_t hidden = spec_.hidden_size;
    const int64_t intermediate = feed_forward.intermediate_size;
    const auto load = feed_forward.bias ? &StageWeightsLoader::Affine : &StageWeightsLoader::Matmul;
    const auto name = [&](const char* part) { return tensor_names::Layer(layer, part); };
    if (feed_forward.gated) {
      RETURN_IF_ERROR((this->*load)(name("gate"), {intermediate, hidden}, weights.gate));
    }
    RETURN_IF_ERROR((this->*load)(name("up"), {intermediate, hidden}, weights.up));
    return (this->*load)(name("down"), {hidden, intermediate}, weights.down);
  }

  absl::Status LoadLayer(int index) {
    const LayerSpec& layer = spec_.decoder.layers[static_cast<size_t>(index)];
    LayerWeights& weights = weights_.layers_[static_cast<size_t>(index - weights_.first_layer_)];
    const auto name = [&](const char* part) { return tensor_names::Layer(index, part); };
    RETURN_IF_ERROR(Norms(name("attention_norm"), layer, weights.attention_norm));
    RETURN_IF_ERROR(LoadAttention(index, layer.self_attention, weights));
    RETURN_IF_ERROR(Norms(name("feed_forward_norm"), layer, weights.feed_forward_norm));
    return LoadFeedForward(index, layer.feed_forward, weights);
  }

  absl::Status LoadHead() {
    RETURN_IF_ERROR(Norm("final_norm", spec_.decoder.final_norm, weights_.final_norm_));
    const LoadFormat format = HeadFormat(format_, spec_);
    if (!spec_.tied_head) {
      Plan(weights_.head_, {tensor_names::kHead, {spec_.vocab_size, spec_.hidden_size}, format});
      return absl::OkStatus();
    }
    // An embedding is never quantized in a checkpoint.
    const bool has_embedding = !matrices_.empty();  // the first of them
    if (!has_embedding || format == LoadFormat::kInt8) Plan(weights_.head_, Embedding(format));
    return absl::OkStatus();
  }

  static constexpr int kMostThreads = 16;
  static constexpr int64_t kMostLoadingBytes = int64_t{1} << 30;

  Backend& backend_;
  const ModelSpec& spec_;
  const Checkpoint& checkpoint_;
  const LoadFormat format_;
  StageWeights weights_;
  std::vector<Planned> matrices_;
  std::vector<size_t> matrices_of_layers_;  // how many are planned up to each layer's end
  std::vector<absl::Status> statuses_;      // of the matrices, each written by one thread
  std::atomic<size_t> next_{0};
  std::atomic<size_t> loaded_{0};
  std::atomic<bool> failed_{false};
};

absl::StatusOr<StageWeights> StageWeights::Load(Backend& backend, const ModelSpec& spec,
                                                const Checkpoint& checkpoint,
                                                const StageOptions& options,
                                                const std::function<void(int)>& progress) {
  return StageWeightsLoader(backend, spec, checkpoint, options.weight_format)
      .Load(options, progress);
}

}  // namespace sauva
