#include "kernels/cuda/arithmetic.h"
#include "kernels/cuda/sample.h"

// One block of threads draws one token. It reads the row of logits once for every question it
// asks of it: who is the likeliest, what do all weigh, below which rank is the cut. Masses are
// integers, so that no answer depends on the order of threads.
namespace sauva::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;
static_assert(kWarps == kWarp, "a warp's lanes hold one value of each warp");
constexpr float kInfinity = __builtin_huge_valf();
constexpr int kSharedBytes = kWarps * 8 + 8;  // a value of each warp, and an answer

// Tokens as one number each, in order of likelihood: the larger number is likelier. The upper
// half orders logits, the lower half token ids.
using Rank = uint64_t;

__device__ __forceinline__ int Thread() { return static_cast<int>(threadIdx.x); }
__device__ __forceinline__ int Lane() { return Thread() % kWarp; }
__device__ __forceinline__ int Warp() { return Thread() / kWarp; }

__device__ __forceinline__ uint32_t KeyOf(float logit) {
  const bool finite = (BitsOf(logit) & 0x7f800000u) != 0x7f800000u;
  const uint32_t bits = finite ? BitsOf(logit + 0.0f) : 0xff800000u;  // one zero, one infinity
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float LogitOf(uint32_t key) {
  return FloatOf((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}
__device__ __forceinline__ Rank RankOf(uint32_t key, int token) {
  return static_cast<Rank>(key) << 32 | ~static_cast<uint32_t>(token);
}
__device__ __forceinline__ uint32_t KeyIn(Rank rank) { return static_cast<uint32_t>(rank >> 32); }
__device__ __forceinline__ int TokenIn(Rank rank) {
  return static_cast<int>(~static_cast<uint32_t>(rank));
}

// The combination of every thread's value, to every thread.
template <class T, class Combine>
__device__ T OverBlock(T value, Combine combine) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value = combine(value, ShuffleXor(value, mask));
  auto* of_warps = reinterpret_cast<T*>(DynamicShared());
  SyncThreads();  // what was there has been read
  if (Lane() == 0) of_warps[Warp()] = value;
  SyncThreads();
  value = of_warps[Lane()];
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value = combine(value, ShuffleXor(value, mask));
  return value;
}
__device__ int64_t SumOverBlock(int64_t value) {
  return OverBlock(value, [](int64_t a, int64_t b) { return a + b; });
}

struct Row {
  float* logits;
  int count;

  __device__ __forceinline__ uint32_t key(int token) const { return KeyOf(logits[token]); }
  __device__ __forceinline__ Rank rank(int token) const { return RankOf(key(token), token); }
  __device__ __forceinline__ float logit(int token) const {
    return key(token) == KeyOf(-kInfinity) ? -kInfinity : logits[token];
  }
};

// What the tokens of a row count when they are added up: their mass, or 1 each.
struct Counted {
  Rank least = 0;  // tokens that rank below count nothing
  bool weighed = false;
  int likeliest = 0;
  float highest = 0;  // its logit
  float temperature = 1;
  float min_weight = 0;  // tokens that weigh less count nothing, but for the likeliest

  __device__ __forceinline__ int64_t OfKey(uint32_t key, float lightest) const {
    if (!weighed) return 1;
    const float weight = Exp((LogitOf(key) - highest) / temperature);
    return weight > 0 && !(weight < lightest) ? static_cast<int64_t>(weight * kMassOfOne) : 0;
  }
  __device__ __forceinline__ int64_t Of(uint32_t key, int token) const {
    if (RankOf(key, token) < least) return 0;
    return OfKey(key, token == likeliest ? 0 : min_weight);
  }
};

__device__ void AddBiases(const Row& row, const TokenFact* biases, int count) {
  // Those of one token fall to one thread, in their order.
  for (int i = 0; i < count; ++i) {
    const int token = biases[i].token;
    if (token % kThreads == Thread()) row.logits[token] = row.logits[token] + biases[i].amount;
  }
}

// Source: kernels/sampler.cc.
__device__ void Penalize(const Row& row, const SampleControls& controls, const TokenFact* counts) {
  for (int i = Thread(); i < controls.num_counts; i += kThreads) {
    float& at = row.logits[counts[i].token];
    float logit = at;
    if (controls.repetition_penalty != 1) {
      logit = logit > 0 ? logit / controls.repetition_penalty : logit * controls.repetition_penalty;
    }
    if (counts[i].amount > 0) {
      logit = logit - controls.presence_penalty;
      logit = logit - controls.frequency_penalty * counts[i].amount;
    }
    at = logit;
  }
}

// The likeliest token that ranks below `limit`.
__device__ Rank LikeliestBelow(const Row& row, Rank limit) {
  Rank best = 0;
  for (int i = Thread(); i < row.count; i += kThreads) {
    const Rank rank = row.rank(i);
    if (rank < limit && rank > best) best = rank;
  }
  return OverBlock(best, [](Rank a, Rank b) { return a > b ? a : b; });
}

__device__ int64_t SumOf(const Row& row, const Counted& counted) {
  int64_t sum = 0;
  for (int i = Thread(); i < row.count; i += kThreads) sum += counted.Of(row.key(i), i);
  return SumOverBlock(sum);
}

// The first token, by id, at which of(token), added up, exceeds `target`; the sum of all does.
// Each warp adds up a part of the row; the part in question is then walked by its warp.
template <class Of>
__device__ int FirstBeyond(const Row& row, int64_t target, Of of) {
  const int part = (row.count + kThreads - 1) / kThreads * kWarp;
  const auto sum_of_chunk = [&](int first) {
    int64_t sum = first + Lane() < row.count ? of(first + Lane()) : 0;
    for (int mask = kWarp / 2; mask > 0; mask /= 2) sum = sum + ShuffleXor(sum, mask);
    return sum;
  };
  int64_t mine = 0;
  const int end = (Warp() + 1) * part < row.count ? (Warp() + 1) * part : row.count;
  for (int i = Warp() * part + Lane(); i < end; i += kWarp) mine += of(i);
  for (int mask = kWarp / 2; mask > 0; mask /= 2) mine = mine + ShuffleXor(mine, mask);
  auto* of_warps = reinterpret_cast<int64_t*>(DynamicShared());
  auto* answer = reinterpret_cast<int*>(of_warps + kWarps);
  SyncThreads();
  if (Lane() == 0) of_warps[Warp()] = mine;
  SyncThreads();
  int64_t before = 0;
  int warp = 0;
  while (warp < kWarps - 1 && before + of_warps[warp] <= target) before += of_warps[warp++];
  if (warp == Warp()) {
    int first = warp * part;
    for (int64_t sum = sum_of_chunk(first); before + sum <= target && first + kWarp < row.count;
         sum = sum_of_chunk(first)) {
      before += sum;
      first += kWarp;
    }
    const int64_t own = first + Lane() < row.count ? of(first + Lane()) : 0;
    int64_t after = own;  // of this lane and those above it
    for (int delta = 1; delta < kWarp; delta *= 2) {
      const int64_t further = ShuffleDown(after, delta);
      if (Lane() + delta < kWarp) after += further;
    }
    const int64_t upto = before + sum_of_chunk(first) - after + own;
    const uint32_t beyond = Ballot(upto > target);
    if (Lane() == 0) *answer = first + CountBits((beyond & (0u - beyond)) - 1);
  }
  SyncThreads();
  return *answer;
}

// The rank of the last token of the shortest prefix, likeliest first, of which `counted` adds
// up to `wanted`; all tokens together do. Logits are found two bits at a time.
__device__ Rank LastOfPrefix(const Row& row, const Counted& counted, int64_t wanted) {
  uint32_t key = 0;
  int64_t above = 0;
  for (int shift = 30; shift >= 0; shift -= 2) {
    int64_t sums[3] = {};
    for (int i = Thread(); i < row.count; i += kThreads) {
      const uint32_t own = row.key(i);
      const uint32_t digit = (own ^ key) >> shift;  // key has no digit here yet
      if (digit == 0 || digit > 3) continue;
      const int64_t amount = counted.Of(own, i);
#pragma unroll
      for (uint32_t d = 0; d < 3; ++d) sums[d] += digit == d + 1 ? amount : 0;
    }
    uint32_t digit = 0;
#pragma unroll
    for (int d = 2; d >= 0; --d) {
      if (digit != 0) continue;
      const int64_t sum = SumOverBlock(sums[d]);
      if (above + sum >= wanted) {
        digit = static_cast<uint32_t>(d) + 1;
      } else {
        above += sum;
      }
    }
    key |= digit << shift;
  }
  const int64_t each = counted.OfKey(key, 0);
  const int64_t num_equal = (wanted - above + each - 1) / each;
  const int last =
      FirstBeyond(row, num_equal - 1, [&](int token) { return int64_t{row.key(token) == key}; });
  return RankOf(key, last);
}

// Source: kernels/sampler.cc, DrawTarget.
__device__ __forceinline__ int64_t DrawTargetOf(int64_t mass, float uniform) {
  const auto bits = static_cast<int64_t>(uniform * 0x1p24f);
  return (mass >> 24) * bits + (((mass & 0xffffff) * bits) >> 24);
}

// Temperature, top-k, top-p, min-p, draw.
__device__ int Draw(const Row& row, const SampleControls& controls, Rank best) {
  Counted counted;
  if (controls.top_k > 0 && controls.top_k < row.count) {
    counted.least = LastOfPrefix(row, counted, controls.top_k);
  }
  counted.weighed = true;
  counted.likeliest = TokenIn(best);
  counted.highest = LogitOf(KeyIn(best));
  counted.temperature = controls.temperature;
  if (controls.top_p < 1) {
    const double share = controls.top_p > 0 ? static_cast<double>(controls.top_p) : 0;
    const auto wanted = static_cast<int64_t>(share * static_cast<double>(SumOf(row, counted)));
    counted.least = LastOfPrefix(row, counted, wanted > 1 ? wanted : 1);
  }
  counted.min_weight = controls.min_p;
  const int64_t target = DrawTargetOf(SumOf(row, counted), controls.uniform);
  return FirstBeyond(row, target, [&](int token) { return counted.Of(row.key(token), token); });
}

// The likeliest tokens and the mass of all, before temperature.
__device__ void Report(const Row& row, int num_top, Rank best, SampledRow& result) {
  const int64_t mass = SumOf(row, {.weighed = true, .highest = LogitOf(KeyIn(best))});
  if (Thread() == 0) result.mass = mass;
  for (int i = 0; i < num_top; ++i) {
    if (Thread() == 0) {
      result.top_tokens[i] = TokenIn(best);
      result.top_logits[i] = row.logit(TokenIn(best));
    }
    if (i + 1 < num_top) best = LikeliestBelow(row, best);
  }
}

__global__ void __launch_bounds__(kThreads) Sample(SampleLaunch args) {
  const SampleControls controls = args.controls[blockIdx.x];
  SampledRow& result = args.results[blockIdx.x];
  const Row row = {args.logits.data + static_cast<int64_t>(blockIdx.x) * args.logits.stride,
                   args.logits.columns};
  const TokenFact* facts = args.facts + controls.first_fact;
  if (controls.num_biases > 0) AddBiases(row, facts, controls.num_biases);
  SyncThreads();
  if (controls.num_counts > 0) Penalize(row, controls, facts + controls.num_biases);
  SyncThreads();
  const Rank best = LikeliestBelow(row, ~Rank{0});
  const bool none = LogitOf(KeyIn(best)) == -kInfinity;
  const int token = none                       ? -1
                    : controls.temperature > 0 ? Draw(row, controls, best)
                                               : TokenIn(best);
  if (Thread() == 0) {
    result.token = token;
    result.highest = LogitOf(KeyIn(best));
    result.logit = none ? 0.0f : row.logit(token);
  }
  if (!none && controls.num_top > 0) Report(row, controls.num_top, best, result);
}

}  // namespace

void LaunchSample(const SampleLaunch& args, void* stream) {
  if (args.logits.rows == 0) return;
  Launch(Sample,
         {.grid = {static_cast<unsigned>(args.logits.rows), 1, 1},
          .threads = kThreads,
          .shared_bytes = kSharedBytes,
          .stream = stream},
         args);
}

}  // namespace sauva::cuda
