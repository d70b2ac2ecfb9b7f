#pragma once

#include "kernels/cuda/code_matmul.h"
#include "kernels/cuda/weight_layout.h"
#include "kernels/cuda/weight_reads.h"
#include "kernels/numerics.h"
#include "simt_target.h"

// How a lane reads its codes of a tile and makes them the operand of a matrix instruction:
// one struct per format. Raw is what it loads; Dots adds sums of products over 32 columns to exact
// integers that begin as kStart, and ToFloat makes such an integer a float. `zeros` are of the
// lane's rows, `sums` of its tokens.
namespace sauva::cuda {

// Integer sums over an activation group are below 2^22, so counting them up from the bits of 1.5 *
// 2^23 makes each of them a float without a conversion.
constexpr int32_t kMagicBits = 0x4b400000;

struct DotOperands {
  uint32_t codes[2] = {};  // of the activations
  int sums[2] = {};        // of their codes, by token
  int zeros[2] = {};       // by row
};

__device__ __forceinline__ void IntegerDots(const uint32_t (&a)[4], const DotOperands& x,
                                            int32_t (&dots)[4]) {
  MultiplyInt8(a, x.codes, dots);
#pragma unroll
  for (int i = 0; i < 4; ++i) dots[i] -= x.zeros[i / 2] * x.sums[i % 2];
}

__device__ __forceinline__ int ByteOf(const void* bytes, int64_t index) {
  return static_cast<const uint8_t*>(bytes)[index];
}

struct Int8Codes {
  using Raw = uint4;
  static constexpr int32_t kStart = kMagicBits;
  static __device__ __forceinline__ float ToFloat(int32_t dot) {
    return FloatOf(static_cast<uint32_t>(dot)) - kRoundMagic;
  }
  template <WeightReads kReads>
  static __device__ __forceinline__ Raw Load(const CodeMatrix& m, int64_t tile, int64_t group,
                                             int lane) {
    return ReadWeight<kReads>(static_cast<const uint4*>(m.codes) +
                              (tile * m.groups() + group) * 32 + lane);
  }
  static __device__ __forceinline__ void Dots(const Raw& raw, int64_t, const DotOperands& x,
                                              int32_t (&dots)[4]) {
    IntegerDots({raw.x, raw.y, raw.z, raw.w}, x, dots);
  }
  static __device__ __forceinline__ int At(const CodeMatrix& m, int64_t tile, int64_t group,
                                           TilePlace p) {
    const int64_t lane = (tile * m.groups() + group) * 32 + p.lane;
    return static_cast<int8_t>(ByteOf(m.codes, lane * 16 + p.part * 4 + p.byte));
  }
};

struct Int4Codes : Int8Codes {
  using Raw = uint2;
  template <WeightReads kReads>
  static __device__ __forceinline__ Raw Load(const CodeMatrix& m, int64_t tile, int64_t group,
                                             int lane) {
    return ReadWeight<kReads>(static_cast<const uint2*>(m.codes) +
                              (tile * m.groups() + group) * 32 + lane);
  }
  static __device__ __forceinline__ void Dots(const Raw& raw, int64_t, const DotOperands& x,
                                              int32_t (&dots)[4]) {
    constexpr uint32_t kLow = 0x0f0f0f0fu;
    IntegerDots({raw.x & kLow, raw.x >> 4 & kLow, raw.y & kLow, raw.y >> 4 & kLow}, x, dots);
  }
  static __device__ __forceinline__ int At(const CodeMatrix& m, int64_t tile, int64_t group,
                                           TilePlace p) {
    const BitPlace place = Int4Place(p);
    return ByteOf(m.codes, (tile * m.groups() + group) * 256 + place.byte) >> place.shift & 15;
  }
};

struct Int3Codes : Int8Codes {
  struct Raw {
    uint32_t low, high;
  };
  static __device__ __forceinline__ int64_t Pair(const CodeMatrix& m, int64_t tile, int64_t group) {
    return tile * ((m.groups() + 1) / 2) + group / 2;
  }
  template <WeightReads kReads>
  static __device__ __forceinline__ Raw Load(const CodeMatrix& m, int64_t tile, int64_t group,
                                             int lane) {
    const auto* low = static_cast<const uint32_t*>(m.codes);
    const auto* high = static_cast<const uint32_t*>(m.high);
    return {ReadWeight<kReads>(low + (tile * m.groups() + group) * 32 + lane),
            high[Pair(m, tile, group) * 32 + lane]};
  }
  static __device__ __forceinline__ void Dots(const Raw& raw, int64_t group, const DotOperands& x,
                                              int32_t (&dots)[4]) {
    const uint32_t high = raw.high >> (group % 2 * 4);
    uint32_t a[4];
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      a[part] = (raw.low >> (2 * part) & 0x03030303u) | (high >> part & 0x01010101u) << 2;
    }
    IntegerDots(a, x, dots);
  }
  static __device__ __forceinline__ int At(const CodeMatrix& m, int64_t tile, int64_t group,
                                           TilePlace p) {
    const BitPlace low = Int3LowPlace(p);
    const BitPlace high = Int3HighPlace(p, group);
    const int bits = ByteOf(m.codes, (tile * m.groups() + group) * 128 + low.byte) >> low.shift & 3;
    return bits | (ByteOf(m.high, Pair(m, tile, group) * 128 + high.byte) >> high.shift & 1) << 2;
  }
};

// The 16 values of NF4 in units of 2^-15 or so are too long for int8: each is
// kNf4Step * coarse + fine, and there are two matrix instructions.
constexpr int kNf4Step = 258;
constexpr int Nf4Coarse(int code) {
  const int value = kNf4Fixed[code];
  return (value + (value < 0 ? -kNf4Step / 2 : kNf4Step / 2)) / kNf4Step;
}
constexpr int Nf4Fine(int code) { return kNf4Fixed[code] - kNf4Step * Nf4Coarse(code); }
constexpr bool Nf4Fits() {
  for (int code = 0; code < 16; ++code) {
    const int coarse = Nf4Coarse(code), fine = Nf4Fine(code);
    if (coarse < -128 || coarse > 127 || fine < -128 || fine > 127) return false;
  }
  return true;
}
static_assert(Nf4Fits());
// Four of 16 bytes, the first lowest.
constexpr uint32_t FourBytes(int (*of)(int), int first) {
  uint32_t bytes = 0;
  for (int i = 0; i < 4; ++i) bytes |= (static_cast<uint32_t>(of(first + i)) & 0xffu) << (8 * i);
  return bytes;
}
struct Nf4Table {
  uint32_t words[4];
};
constexpr Nf4Table TableOf(int (*of)(int)) {
  return {{FourBytes(of, 0), FourBytes(of, 4), FourBytes(of, 8), FourBytes(of, 12)}};
}

struct Nf4Codes {
  using Raw = uint2;
  static constexpr int32_t kStart = 0;
  static __device__ __forceinline__ float ToFloat(int32_t dot) { return static_cast<float>(dot); }
  template <WeightReads kReads>
  static __device__ __forceinline__ Raw Load(const CodeMatrix& m, int64_t tile, int64_t group,
                                             int lane) {
    return Int4Codes::template Load<kReads>(m, tile, group, lane);
  }
  // The bytes of a table of 16 that the four nibbles of `codes` name.
  static __device__ __forceinline__ uint32_t LookUp(const Nf4Table& table, uint32_t codes) {
    const uint32_t selector = codes & 0x7777u;
    const uint32_t lower = ChooseBytes(table.words[0], table.words[1], selector);
    const uint32_t upper = ChooseBytes(table.words[2], table.words[3], selector);
    const uint32_t mask = ChooseBytes(0x0000ff00u, 0, codes >> 3 & 0x1111u);
    return (lower & ~mask) | (upper & mask);
  }
  static __device__ __forceinline__ void Dots(const Raw& raw, int64_t, const DotOperands& x,
                                              int32_t (&dots)[4]) {
    constexpr Nf4Table kCoarse = TableOf(Nf4Coarse);
    constexpr Nf4Table kFine = TableOf(Nf4Fine);
    const uint32_t codes[4] = {raw.x & 0xffffu, raw.x >> 16, raw.y & 0xffffu, raw.y >> 16};
    uint32_t coarse[4], fine[4];
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      coarse[part] = LookUp(kCoarse, codes[part]);
      fine[part] = LookUp(kFine, codes[part]);
    }
    int32_t high[4] = {}, low[4] = {};
    MultiplyInt8(coarse, x.codes, high);
    MultiplyInt8(fine, x.codes, low);
#pragma unroll
    for (int i = 0; i < 4; ++i) dots[i] += high[i] * kNf4Step + low[i];
  }
  static __device__ __forceinline__ int At(const CodeMatrix& m, int64_t tile, int64_t group,
                                           TilePlace p) {
    const BitPlace place = Nf4Place(p);
    return ByteOf(m.codes, (tile * m.groups() + group) * 256 + place.byte) >> place.shift & 15;
  }
};

}  // namespace sauva::cuda
