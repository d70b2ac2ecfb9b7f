#include "model/expected_tensors.h"

#include <utility>

#include "model/tensor_names.h"

namespace sauva {
namespace {

class LayerTensors {
 public:
  LayerTensors(int layer, std::vector<ExpectedTensor>& out) : layer_(layer), out_(out) {}

  void Norm(const std::string& part, const NormSpec& norm, int64_t size) {
    Add(part + ".gain", {size});
    if (norm.bias) Add(part + ".bias", {size});
  }

  struct MatrixShape {
    int64_t out = 0;
    int64_t in = 0;
  };
  void Matrix(const std::string& part, MatrixShape shape) { Add(part, {shape.out, shape.in}); }
  void MatrixWithBias(const std::string& part, MatrixShape shape) {
    Matrix(part, shape);
    Add(part + ".bias", {shape.out});
  }

 private:
  void Add(const std::string& part, std::vector<int64_t> shape) {
    out_.push_back({tensor_names::Layer(layer_, part), std::move(shape)});
  }

  int layer_;
  std::vector<ExpectedTensor>& out_;
};

void AddAttention(const AttentionSpec& attention, int64_t hidden, LayerTensors& tensors) {
  const auto add_qkv = attention.qkv_bias ? &LayerTensors::MatrixWithBias : &LayerTensors::Matrix;
  const auto add_out = attention.out_bias ? &LayerTensors::MatrixWithBias : &LayerTensors::Matrix;
  const int64_t q_size = int64_t{attention.num_heads} * attention.head_dim;
  const int64_t kv_size = int64_t{attention.num_kv_heads} * attention.head_dim;
  (tensors.*add_qkv)("self.q", {q_size, hidden});
  (tensors.*add_qkv)("self.k", {kv_size, hidden});
  (tensors.*add_qkv)("self.v", {kv_size, hidden});
  (tensors.*add_out)("self.out", {hidden, q_size});
}

void AddFeedForward(const FeedForwardSpec& feed_forward, int64_t hidden, LayerTensors& tensors) {
  const auto add = feed_forward.bias ? &LayerTensors::MatrixWithBias : &LayerTensors::Matrix;
  const int64_t intermediate = feed_forward.intermediate_size;
  if (feed_forward.gated) (tensors.*add)("gate", {intermediate, hidden});
  (tensors.*add)("up", {intermediate, hidden});
  (tensors.*add)("down", {hidden, intermediate});
}

}  // namespace

std::vector<ExpectedTensor> ExpectedTensors(const ModelSpec& spec) {
  const int64_t hidden = spec.hidden_size;
  std::vector<ExpectedTensor> expected;
  expected.push_back({tensor_names::kEmbedding, {spec.vocab_size, hidden}});
  for (int i = 0; i < spec.num_layers(); ++i) {
    const LayerSpec& layer = spec.decoder.layers[static_cast<size_t>(i)];
    LayerTensors tensors(i, expected);
    tensors.Norm("attention_norm", layer.norm, hidden);
    AddAttention(layer.self_attention, hidden, tensors);
    tensors.Norm("feed_forward_norm", layer.norm, hidden);
    AddFeedForward(layer.feed_forward, hidden, tensors);
  }
  expected.push_back({tensor_names::kFinalNormGain, {hidden}});
  if (spec.decoder.final_norm.bias) {
    expected.push_back({tensor_names::kFinalNormBias, {hidden}});
  }
  if (!spec.tied_head) expected.push_back({tensor_names::kHead, {spec.vocab_size, hidden}});
  return expected;
}

}  // namespace sauva
