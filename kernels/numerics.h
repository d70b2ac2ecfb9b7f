#pragma once

#include <cstdint>

// The constants of the numerics contract (docs/numerics.md). Changing one changes the
// answers of models, so it comes with a new numerics version. Constants of internal linkage
// only: the files compiled per instruction set include this header and share no symbol.
namespace sauva {

constexpr int kLanes = 16;     // virtual lanes of a f32 sum
constexpr int kInt8Unit = 32;  // activations share an int8 scale in 1, 2 or 4 units of these
constexpr int kInt8LargestGroup = 4 * kInt8Unit;
constexpr int kAttentionBlock = 16;  // keys per block, and tokens per KV block
constexpr int kAttentionSpan = 512;  // absolute positions per span
constexpr float kInt8Max = 127.0f;

// An activation group whose largest magnitude is below this counts as zero, as its
// inverse scale might not be finite.
constexpr float kInt8SmallestMagnitude = 0x1p-100f;

// kNf4Values (kernels/quantized_matrix.h) times 32639 = 127 * 257, rounded: what int8
// activations are multiplied by, as two signed bytes. None is further than 1.3e-5 from its
// value.
constexpr float kNf4FixedStep = 1.0f / 32639.0f;
constexpr int kNf4Fixed[16] = {-32639, -22723, -17138, -12890, -9284, -6031, -2972, 0,
                               2597,   5253,   8033,   11029,  14384, 18363, 23597, 32639};

// exp(x) = 2^n (1 + r + r^2 q(r)), n = round(x / ln 2), r = x - n ln 2.
// q is a Chebyshev fit of degree 4 on [-ln 2 / 2, ln 2 / 2], relative error 8e-9.
constexpr float kExpLowest = -105.0f;  // rounds to 0
constexpr float kExpHighest = 89.0f;   // rounds to infinity
constexpr float kLog2E = 1.44269504089f;
constexpr float kLn2High = 0.693359375f;  // 10 bits, so that n * kLn2High is exact
constexpr float kLn2Low = -2.12194440e-4f;
constexpr float kRoundMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
constexpr float kExpTerms[5] = {0.00139261835877f, 0.00836317905272f, 0.0416665546172f,
                                0.166665769897f, 0.5f};

// 1 - Phi(x) = t p(t) exp(-x^2 / 2) for x >= 0, t = 1 / (1 + 0.35 x), Phi the normal
// distribution; p is a Chebyshev fit of degree 8 for x in [0, 14], relative error 4e-8.
constexpr float kNormalTailStep = 0.35f;
constexpr float kNormalTailTerms[9] = {-0.029679522f, 0.1465458303f,   -0.2609612283f,
                                       0.1650509959f, -0.02704660827f, 0.1071145876f,
                                       0.1194449168f, 0.1399122981f,   0.1396187126f};

// gelu_tanh(x) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3).
constexpr float kGeluTanhTwice = 1.59576912161f;  // 2 sqrt(2 / pi)
constexpr float kGeluTanhCubic = 0.044715f;

// Sampling weighs the likeliest token 1; masses are whole numbers of 2^-40 of that, so that
// any order of adding them up is exact. As many tokens as an int64 surely holds the sum of.
constexpr float kMassOfOne = 0x1p40f;
constexpr int kMostTokens = 1 << 22;

}  // namespace sauva
