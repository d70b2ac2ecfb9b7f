#include "engine/block.h"

#include <span>

namespace sauva {
namespace {

GateKind KindOf(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return GateKind::kSilu;
    case Activation::kGelu:
      return GateKind::kGelu;
    case Activation::kGeluTanh:
      return GateKind::kGeluTanh;
    case Activation::kRelu:
      return GateKind::kRelu;
  }
  return GateKind::kSilu;
}

MatMulArgs ProductOf(const Linear& linear, Rows in, Rows out) {
  return {.weight = linear.weight.get(), .x = in, .bias = linear.bias, .out = out};
}

}  // namespace

void NormalizeRows(Backend& backend, const NormSpec& spec, const NormVectors& vectors, Rows in,
                   Rows out) {
  backend.Norm({.x = in,
                .gain = vectors.gain,
                .bias = vectors.bias,
                .subtract_mean = spec.kind == NormKind::kLayerNorm,
                .epsilon = spec.epsilon,
                .out = out});
}

void Block::Forward(const LayerView& layer, Rows x) {
  Residual(layer, layer.weights.attention_norm, x,
           [&](Rows in, Rows out) { Attention(layer, in, out); });
  Residual(layer, layer.weights.feed_forward_norm, x,
           [&](Rows in, Rows out) { FeedForward(layer, in, out); });
}

// The one place that knows how a sublayer joins the residual stream.
void Block::Residual(const LayerView& layer, const SublayerNorms& norms, Rows x, Sublayer f) {
  const NormSpec& norm = layer.spec.norm;
  const Rows normed = scratch_.normed.First(x.rows);
  const Rows result = scratch_.result.First(x.rows);
  switch (layer.spec.placement) {
    case NormPlacement::kPre:  // x + f(norm(x))
      Normalize(norm, norms.in, x, normed);
      f(normed, result);
      backend_.Add(x, result);
      return;
    case NormPlacement::kPost:  // norm(x + f(x))
      f(x, result);
      backend_.Add(x, result);
      Normalize(norm, norms.in, x, x);
      return;
    case NormPlacement::kSandwich:  // x + norm_out(f(norm_in(x)))
      Normalize(norm, norms.in, x, normed);
      f(normed, result);
      Normalize(norm, norms.out, result, result);
      backend_.Add(x, result);
      return;
  }
}

void Block::Attention(const LayerView& layer, Rows in, Rows out) {
  const AttentionSpec& spec = layer.spec.self_attention;
  const int q_size = spec.num_heads * spec.head_dim;
  const int kv_size = spec.num_kv_heads * spec.head_dim;
  const Rows queries = scratch_.queries.First(in.rows).Columns(0, q_size);
  const Rows keys = scratch_.keys.First(in.rows).Columns(0, kv_size);
  const Rows values = scratch_.values.First(in.rows).Columns(0, kv_size);
  const Rows mixed = scratch_.mixed.First(in.rows).Columns(0, q_size);
  const MatMulArgs products[] = {ProductOf(layer.weights.q, in, queries),
                                 ProductOf(layer.weights.k, in, keys),
                                 ProductOf(layer.weights.v, in, values)};
  backend_.MatMulAll(products);
  if (spec.rope) {
    backend_.Rope({.x = queries,
                   .num_heads = spec.num_heads,
                   .head_dim = spec.head_dim,
                   .table = layer.rope});
    backend_.Rope({.x = keys,
                   .num_heads = spec.num_kv_heads,
                   .head_dim = spec.head_dim,
                   .table = layer.rope});
  }
  backend_.WriteKv(
      {.keys = keys, .values = values, .cache = layer.cache, .kv_group = layer.kv_group});
  backend_.Attention({.queries = queries,
                      .cache = layer.cache,
                      .kv_group = layer.kv_group,
                      .num_heads = spec.num_heads,
                      .score_scale = spec.score_scale,
                      .window = spec.window,
                      .out = mixed});
  Apply(layer.weights.out, mixed, out);
}

void Block::FeedForward(const LayerView& layer, Rows in, Rows out) {
  const FeedForwardSpec& spec = layer.spec.feed_forward;
  const Rows gate = scratch_.gate.First(in.rows).Columns(0, spec.intermediate_size);
  const Rows up = scratch_.up.First(in.rows).Columns(0, spec.intermediate_size);
  const MatMulArgs products[] = {ProductOf(layer.weights.up, in, up),
                                 ProductOf(layer.weights.gate, in, gate)};
  backend_.MatMulAll(std::span(products).first(spec.gated ? 2 : 1));
  if (spec.gated) {
    backend_.Activate({.kind = KindOf(spec.activation), .gate = gate, .up = up, .out = gate});
    Apply(layer.weights.down, gate, out);
    return;
  }
  backend_.Activate({.kind = KindOf(spec.activation), .gate = up, .up = {}, .out = up});
  Apply(layer.weights.down, up, out);
}

void Block::Normalize(const NormSpec& spec, const NormVectors& vectors, Rows in, Rows out) {
  NormalizeRows(backend_, spec, vectors, in, out);
}

void Block::Apply(const Linear& linear, Rows in, Rows out) {
  backend_.MatMul(ProductOf(linear, in, out));
}

}  // namespace sauva
