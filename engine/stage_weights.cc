#include "engine/stage_weights.h"

#include <optional>
#include <string>
#include <utility>

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

  absl::StatusOr<StageWeights> Load(const StageOptions& options,
                                    const std::function<void(int)>& progress) {
    weights_.first_layer_ = options.layers.first;
    if (options.first) {
      ASSIGN_OR_RETURN(weights_.embedding_, Embedding(LoadFormat::kStored));
    }
    for (int layer = options.layers.first; layer < options.layers.last; ++layer) {
      RETURN_IF_ERROR(LoadLayer(layer));
      if (progress) progress(layer - options.layers.first + 1);
    }
    if (options.last) RETURN_IF_ERROR(LoadHead());
    return std::move(weights_);
  }

 private:
  struct MatrixShape {
    int64_t out = 0;
    int64_t in = 0;
  };

  absl::StatusOr<StoredTensor> Find(const std::string& name, const std::vector<int64_t>& shape) {
    ASSIGN_OR_RETURN(const StoredTensor tensor, checkpoint_.Find(name));
    if (tensor.shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": expected shape [",
                                                     absl::StrJoin(shape, ", "), "], found [",
                                                     absl::StrJoin(tensor.shape, ", "), "]"));
    }
    return tensor;
  }

  absl::StatusOr<std::unique_ptr<Weight>> Matrix(const std::string& name, MatrixShape shape,
                                                 LoadFormat format) {
    if (checkpoint_.FindQuantized(name)) return StoredQuantized(name, shape, format);
    ASSIGN_OR_RETURN(const StoredTensor tensor, Find(name, {shape.out, shape.in}));
    WeightSource source = {.name = name,
                           .dtype = tensor.dtype,
                           .rows = shape.out,
                           .columns = shape.in,
                           .bytes = tensor.bytes};
    ASSIGN_OR_RETURN(const std::optional<QuantizedMatrix> rounded, RoundAtLoad(source, format));
    if (rounded) source.quantized = &*rounded;
    return Prepare(source);
  }

  // One matrix in memory at a time: the backend keeps its own packed form.
  absl::StatusOr<std::unique_ptr<Weight>> StoredQuantized(const std::string& name,
                                                          MatrixShape shape, LoadFormat format) {
    ASSIGN_OR_RETURN(const QuantizedMatrix matrix, checkpoint_.ReadQuantized(name));
    if (matrix.rows != shape.out || matrix.columns != shape.in) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": expected ", shape.out,
                                                     " x ", shape.in, ", found ", matrix.rows,
                                                     " x ", matrix.columns));
    }
    WeightSource source = {.name = name, .rows = shape.out, .columns = shape.in};
    if (format == LoadFormat::kStored) {
      source.quantized = &matrix;
      return Prepare(source);
    }
    if (format != LoadFormat::kF32) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name,
                                                     " is already quantized and cannot become ",
                                                     Name(format), "; load it as native"));
    }
    RETURN_IF_ERROR(ValidateQuantizedMatrix(name, matrix));
    const std::vector<float> numbers = DequantizeAll(matrix);
    source.bytes = std::as_bytes(std::span(numbers));
    return Prepare(source);
  }

  absl::StatusOr<std::unique_ptr<Weight>> Prepare(const WeightSource& source) {
    ASSIGN_OR_RETURN(std::unique_ptr<Weight> weight,
                     backend_.PrepareWeight(source, WeightFormat::kNative));
    weights_.size_bytes_ += weight->size_bytes();
    return weight;
  }

  absl::StatusOr<std::unique_ptr<Weight>> Embedding(LoadFormat format) {
    return Matrix(tensor_names::kEmbedding, {spec_.vocab_size, spec_.hidden_size}, format);
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
    ASSIGN_OR_RETURN(linear.weight, Matrix(name, shape, format_));
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
    LayerWeights weights;
    const auto name = [&](const char* part) { return tensor_names::Layer(index, part); };
    RETURN_IF_ERROR(Norms(name("attention_norm"), layer, weights.attention_norm));
    RETURN_IF_ERROR(LoadAttention(index, layer.self_attention, weights));
    RETURN_IF_ERROR(Norms(name("feed_forward_norm"), layer, weights.feed_forward_norm));
    RETURN_IF_ERROR(LoadFeedForward(index, layer.feed_forward, weights));
    weights_.layers_.push_back(std::move(weights));
    return absl::OkStatus();
  }

  absl::Status LoadHead() {
    RETURN_IF_ERROR(Norm("final_norm", spec_.decoder.final_norm, weights_.final_norm_));
    if (!spec_.tied_head) {
      ASSIGN_OR_RETURN(
          weights_.head_,
          Matrix(tensor_names::kHead, {spec_.vocab_size, spec_.hidden_size}, HeadFormat(format_)));
      return absl::OkStatus();
    }
    // An embedding is never quantized in a checkpoint.
    const LoadFormat format = HeadFormat(format_);
    if (weights_.embedding_ && format != LoadFormat::kInt8) return absl::OkStatus();
    ASSIGN_OR_RETURN(weights_.head_, Embedding(format));
    return absl::OkStatus();
  }

  Backend& backend_;
  const ModelSpec& spec_;
  const Checkpoint& checkpoint_;
  const LoadFormat format_;
  StageWeights weights_;
};

absl::StatusOr<StageWeights> StageWeights::Load(Backend& backend, const ModelSpec& spec,
                                                const Checkpoint& checkpoint,
                                                const StageOptions& options,
                                                const std::function<void(int)>& progress) {
  return StageWeightsLoader(backend, spec, checkpoint, options.weight_format)
      .Load(options, progress);
}

}  // namespace sauva
