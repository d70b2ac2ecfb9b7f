#pragma once

#include <cstdint>

// How 16 stored numbers become lanes, by storage type. L is a lane type.
namespace sauva {
namespace {

template <class L>
struct AsF32 {
  using Element = float;
  static L Load(const float* p) { return L::Load(p); }
  static L LoadPartial(const float* p, int64_t n) { return L::LoadPartial(p, n); }
  static void Store(L x, float* p) { x.Store(p); }
};

template <class L>
struct AsF16 {
  using Element = uint16_t;
  static L Load(const uint16_t* p) { return L::LoadHalf(p); }
  static L LoadPartial(const uint16_t* p, int64_t n) { return L::LoadHalfPartial(p, n); }
  static void Store(L x, uint16_t* p) { x.StoreHalf(p); }
};

template <class L>
struct AsBF16 {
  using Element = uint16_t;
  static L Load(const uint16_t* p) { return L::LoadBFloat16(p); }
};

}  // namespace
}  // namespace sauva
