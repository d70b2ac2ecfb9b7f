#include "tests/engine/naive_transformer.h"

#include <cmath>
#include <random>
#include <span>

#include "absl/strings/str_cat.h"
#include "model/expected_tensors.h"
#include "model/tensor_names.h"

namespace sauva {
namespace {

using Matrix = std::vector<std::vector<double>>;  // [tokens, columns]

class Naive {
 public:
  Naive(const ModelSpec& spec, const MapCheckpoint& checkpoint)
      : spec_(spec), checkpoint_(checkpoint) {}

  std::vector<double> Logits(const std::vector<TokenId>& tokens) {
    Matrix x;
    const std::vector<float>& embedding = checkpoint_.Values("embedding");
    for (const TokenId token : tokens) {
      std::vector<double> row;
      for (int i = 0; i < spec_.hidden_size; ++i) {
        row.push_back(double{embedding[static_cast<size_t>(token * spec_.hidden_size + i)]} *
                      spec_.embedding_scale);
      }
      x.push_back(row);
    }
    for (int i = 0; i < spec_.num_layers(); ++i) Layer(i, x);
    const Matrix last = Norm("final_norm", spec_.decoder.final_norm, {x.back()});
    return Linear(spec_.tied_head ? "embedding" : "head", last, false)[0];
  }

 private:
  void Layer(int index, Matrix& x) {
    const LayerSpec& layer = spec_.decoder.layers[static_cast<size_t>(index)];
    prefix_ = absl::StrCat("layers.", index, ".");
    Join(layer, "attention_norm", x, [&](const Matrix& in) { return Attend(layer, in); });
    Join(layer, "feed_forward_norm", x, [&](const Matrix& in) { return FeedForward(layer, in); });
  }

  template <class F>
  void Join(const LayerSpec& layer, const std::string& norm, Matrix& x, F f) {
    const std::string name = prefix_ + norm;
    if (layer.placement == NormPlacement::kPre) x = Sum(x, f(Norm(name, layer.norm, x)));
    if (layer.placement == NormPlacement::kPost) x = Norm(name, layer.norm, Sum(x, f(x)));
    if (layer.placement == NormPlacement::kSandwich) {
      x = Sum(x, Norm(name + "_out", layer.norm, f(Norm(name, layer.norm, x))));
    }
  }

  static Matrix Sum(const Matrix& a, const Matrix& b) {
    Matrix sum = a;
    for (size_t t = 0; t < a.size(); ++t) {
      for (size_t i = 0; i < a[t].size(); ++i) sum[t][i] += b[t][i];
    }
    return sum;
  }

  Matrix Norm(const std::string& name, const NormSpec& norm, Matrix x) {
    const auto& gain = checkpoint_.Values(name + ".gain");
    for (auto& row : x) {
      const auto n = static_cast<double>(row.size());
      double mean = 0;
      double square = 0;
      if (norm.kind == NormKind::kLayerNorm) {
        for (const double value : row) mean += value / n;
      }
      for (const double value : row) square += (value - mean) * (value - mean) / n;
      for (size_t i = 0; i < row.size(); ++i) {
        row[i] = (row[i] - mean) / std::sqrt(square + norm.epsilon) * gain[i];
        if (norm.bias) row[i] += checkpoint_.Values(name + ".bias")[i];
      }
    }
    return x;
  }

  Matrix Linear(const std::string& name, const Matrix& x, bool bias) {
    const auto& weight = checkpoint_.Values(name);
    const size_t columns = x[0].size();
    const size_t rows = weight.size() / columns;
    Matrix out;
    for (const auto& in : x) {
      std::vector<double> row(rows, 0.0);
      for (size_t o = 0; o < rows; ++o) {
        for (size_t i = 0; i < columns; ++i) row[o] += double{weight[o * columns + i]} * in[i];
        if (bias) row[o] += checkpoint_.Values(name + ".bias")[o];
      }
      out.push_back(row);
    }
    return out;
  }

  static void Rope(const RopeSpec& rope, int head_dim, Matrix& x) {
    const auto half = static_cast<size_t>(rope.rotary_dims / 2);
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t head = 0; head < x[t].size(); head += static_cast<size_t>(head_dim)) {
        for (size_t i = 0; i < half; ++i) {
          const double angle =
              static_cast<double>(t) / rope.linear_factor *
              std::pow(rope.theta, -static_cast<double>(i) / static_cast<double>(half));
          const bool halves = rope.layout == RopeLayout::kHalves;
          double& a = x[t][head + (halves ? i : 2 * i)];
          double& b = x[t][head + (halves ? i + half : 2 * i + 1)];
          const double turned = a * std::cos(angle) - b * std::sin(angle);
          b = a * std::sin(angle) + b * std::cos(angle);
          a = turned;
        }
      }
    }
  }

  Matrix Attend(const LayerSpec& layer, const Matrix& x) {
    const AttentionSpec& spec = layer.self_attention;
    Matrix q = Linear(prefix_ + "self.q", x, spec.qkv_bias);
    Matrix k = Linear(prefix_ + "self.k", x, spec.qkv_bias);
    const Matrix v = Linear(prefix_ + "self.v", x, spec.qkv_bias);
    if (spec.rope) {
      Rope(*spec.rope, spec.head_dim, q);
      Rope(*spec.rope, spec.head_dim, k);
    }
    Matrix mixed(x.size(), std::vector<double>(q[0].size(), 0.0));
    const auto dim = static_cast<size_t>(spec.head_dim);
    const auto shared = static_cast<size_t>(spec.num_heads / spec.num_kv_heads);
    for (size_t t = 0; t < x.size(); ++t) {
      const size_t window = spec.window > 0 ? static_cast<size_t>(spec.window) : x.size();
      const size_t first = t + 1 > window ? t + 1 - window : 0;
      for (size_t head = 0; head < static_cast<size_t>(spec.num_heads); ++head) {
        const size_t kv = head / shared * dim;
        std::vector<double> weights;
        double total = 0;
        for (size_t s = first; s <= t; ++s) {
          double dot = 0;
          for (size_t i = 0; i < dim; ++i) dot += q[t][head * dim + i] * k[s][kv + i];
          weights.push_back(std::exp(dot * spec.score_scale));
          total += weights.back();
        }
        for (size_t s = first; s <= t; ++s) {
          for (size_t i = 0; i < dim; ++i) {
            mixed[t][head * dim + i] += weights[s - first] / total * v[s][kv + i];
          }
        }
      }
    }
    return Linear(prefix_ + "self.out", mixed, spec.out_bias);
  }

  static double Activate(Activation kind, double x) {
    switch (kind) {
      case Activation::kSilu:
        return x / (1 + std::exp(-x));
      case Activation::kGelu:
        return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
      case Activation::kGeluTanh:
        return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
      case Activation::kRelu:
        return x > 0 ? x : 0;
    }
    return 0;
  }

  Matrix FeedForward(const LayerSpec& layer, const Matrix& x) {
    const FeedForwardSpec& spec = layer.feed_forward;
    Matrix up = Linear(prefix_ + "up", x, spec.bias);
    const Matrix gate = spec.gated ? Linear(prefix_ + "gate", x, spec.bias) : up;
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t i = 0; i < up[t].size(); ++i) {
        const double activated = Activate(spec.activation, gate[t][i]);
        up[t][i] = spec.gated ? activated * up[t][i] : activated;
      }
    }
    return Linear(prefix_ + "down", up, spec.bias);
  }

  const ModelSpec& spec_;
  const MapCheckpoint& checkpoint_;
  std::string prefix_;
};

}  // namespace

void MapCheckpoint::Set(const std::string& name, std::vector<int64_t> shape,
                        std::vector<float> values) {
  tensors_[name] = {std::move(shape), std::move(values)};
}

absl::StatusOr<StoredTensor> MapCheckpoint::Find(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) return absl::NotFoundError(absl::StrCat("tensor ", name));
  return StoredTensor{.dtype = DType::kF32,
                      .shape = it->second.shape,
                      .bytes = std::as_bytes(std::span(it->second.values))};
}

std::vector<std::string> MapCheckpoint::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors_) names.push_back(name);
  return names;
}

const std::vector<float>& MapCheckpoint::Values(const std::string& name) const {
  return tensors_.at(name).values;
}

MapCheckpoint RandomCheckpoint(const ModelSpec& spec, uint64_t seed) {
  std::mt19937_64 random(seed);
  MapCheckpoint checkpoint;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    const int64_t columns = shape.back();
    const int64_t size = shape.size() == 2 ? shape[0] * columns : columns;
    const bool gain = name.ends_with(".gain");
    const float spread = shape.size() == 2 ? std::sqrt(3.0f / static_cast<float>(columns)) : 0.5f;
    std::uniform_real_distribution<float> uniform(-spread, spread);
    std::vector<float> values;
    for (int64_t i = 0; i < size; ++i) values.push_back((gain ? 1.0f : 0.0f) + uniform(random));
    checkpoint.Set(name, shape, std::move(values));
  };
  for (const ExpectedTensor& tensor : ExpectedTensors(spec)) add(tensor.name, tensor.shape);
  for (int i = 0; i < spec.num_layers(); ++i) {
    const LayerSpec& layer = spec.decoder.layers[static_cast<size_t>(i)];
    if (layer.placement != NormPlacement::kSandwich) continue;
    for (const char* norm : {"attention_norm_out", "feed_forward_norm_out"}) {
      const std::string name = tensor_names::Layer(i, norm);
      add(name + ".gain", {spec.hidden_size});
      if (layer.norm.bias) add(name + ".bias", {spec.hidden_size});
    }
  }
  return checkpoint;
}

std::vector<double> NaiveLogits(const ModelSpec& spec, const MapCheckpoint& checkpoint,
                                const std::vector<TokenId>& tokens) {
  return Naive(spec, checkpoint).Logits(tokens);
}

}  // namespace sauva
