#include "kernels/reference/reference_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/half.h"
#include "kernels/math.h"
#include "kernels/numerics.h"
#include "kernels/reference/reference_math.h"

namespace sauva::reference {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// max(a, b) of the contract; NaN in a gives b.
float Larger(float a, float b) { return a > b ? a : b; }

// e^(from - to), the factor that moves a sum from one maximum to another.
float Rescale(float from, float to) { return from == to ? 1.0f : Exp(from - to); }

// A softmax-weighted sum on its way: of values v with scores s, the largest score, the sum
// of e^(s - largest) and the sum of e^(s - largest) v.
struct Partial {
  float largest = kNone;
  float weight = 0;
  std::vector<float> sum;  // [head_dim]
};

bool Visible(const Query& query, int position) {
  return position <= query.position &&
         (query.window == 0 || position > query.position - query.window);
}

void VisitBlock(const ReferenceKv& cache, const Query& query, int block, Partial& partial) {
  const int head_dim = cache.shape().head_dim;
  const int id = query.blocks[block];
  Lanes scores;
  for (int j = 0; j < kAttentionBlock; ++j) {
    scores.lane[j] = kNone;
    if (!Visible(query, block * kAttentionBlock + j)) continue;
    const float* key = cache.key(id, j, query.kv_head);
    const float dot = Dot(
        head_dim, [&](int64_t i) { return query.vector[i]; }, [&](int64_t i) { return key[i]; });
    scores.lane[j] = dot * query.score_scale;
  }
  const float largest = Larger(partial.largest, scores.Max());
  if (largest == kNone) return;
  const float rescale = Rescale(partial.largest, largest);
  Lanes weights;
  for (int j = 0; j < kAttentionBlock; ++j) weights.lane[j] = Exp(scores.lane[j] - largest);
  partial.weight = std::fma(partial.weight, rescale, weights.Sum());
  for (int d = 0; d < head_dim; ++d) {
    float sum = partial.sum[static_cast<size_t>(d)] * rescale;
    for (int j = 0; j < kAttentionBlock; ++j) {
      if (!Visible(query, block * kAttentionBlock + j)) continue;
      sum = std::fma(weights.lane[j], cache.value(id, j, query.kv_head)[d], sum);
    }
    partial.sum[static_cast<size_t>(d)] = sum;
  }
  partial.largest = largest;
}

void Merge(const Partial& span, Partial& total) {
  if (span.largest == kNone) return;
  const float largest = Larger(total.largest, span.largest);
  const float keep = Rescale(total.largest, largest);
  const float join = Rescale(span.largest, largest);
  total.weight = std::fma(total.weight, keep, span.weight * join);
  for (size_t d = 0; d < total.sum.size(); ++d) {
    total.sum[d] = std::fma(total.sum[d], keep, span.sum[d] * join);
  }
  total.largest = largest;
}

// The int8 code of each number times their one scale.
void StoreCodes(const float* from, int count, float* to) {
  float largest = 0;
  bool finite = true;
  for (int i = 0; i < count; ++i) {
    finite = finite && std::isfinite(from[i]);
    largest = std::max(largest, std::fabs(from[i]));
  }
  const bool zero = !finite || largest < kInt8SmallestMagnitude;
  const float scale = !finite ? std::nanf("") : zero ? 0.0f : largest / kInt8Max;
  for (int i = 0; i < count; ++i) {
    const float code = zero ? 0.0f : std::nearbyint(from[i] * (kInt8Max / largest));
    to[i] = static_cast<float>(static_cast<int8_t>(code)) * scale;
  }
}

}  // namespace

ReferenceKv::ReferenceKv(const KvShape& shape) : shape_(shape) {
  const auto elements = static_cast<size_t>(shape.num_blocks) * kAttentionBlock *
                        static_cast<size_t>(shape.num_kv_heads) *
                        static_cast<size_t>(shape.head_dim);
  keys_.resize(elements);
  values_.resize(elements);
}

void ReferenceKv::Store(const float* from, float* to) const {
  if (shape_.dtype == DType::kI8) return StoreCodes(from, shape_.head_dim, to);
  for (int d = 0; d < shape_.head_dim; ++d) {
    to[d] = shape_.dtype == DType::kF16 ? HalfToFloat(FloatToHalf(from[d])) : from[d];
  }
}

size_t ReferenceKv::Offset(int block, int token, int head) const {
  const auto slot = static_cast<size_t>(block) * kAttentionBlock + static_cast<size_t>(token);
  return (slot * static_cast<size_t>(shape_.num_kv_heads) + static_cast<size_t>(head)) *
         static_cast<size_t>(shape_.head_dim);
}

void Attend(const ReferenceKv& cache, const Query& query) {
  const auto head_dim = static_cast<size_t>(cache.shape().head_dim);
  Partial total{.sum = std::vector<float>(head_dim)};
  constexpr int kBlocksPerSpan = kAttentionSpan / kAttentionBlock;
  const int last_block = query.position / kAttentionBlock;
  for (int first = 0; first <= last_block; first += kBlocksPerSpan) {
    Partial span{.sum = std::vector<float>(head_dim)};
    for (int block = first; block <= std::min(last_block, first + kBlocksPerSpan - 1); ++block) {
      VisitBlock(cache, query, block, span);
    }
    Merge(span, total);
  }
  for (size_t d = 0; d < head_dim; ++d) query.out[d] = total.sum[d] / total.weight;
}

}  // namespace sauva::reference
