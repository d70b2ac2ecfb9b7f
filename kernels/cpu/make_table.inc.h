#pragma once

#include "kernels/cpu/attention.inc.h"
#include "kernels/cpu/dot.inc.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_piece.inc.h"
#include "kernels/cpu/packed_stream.inc.h"
#include "kernels/cpu/quantize.inc.h"
#include "kernels/cpu/rates.inc.h"
#include "kernels/cpu/rows.inc.h"

namespace sauva {
namespace {

// All kernels of lane type L with the integer dot products of D. Gates stand in the order
// of GateKind, storages in that of Storage, codes in that of CodeFormat.
template <class L, class D = L>
constexpr KernelTable MakeTable(const char* name) {
  return {
      .name = name,
      .dot_tile = {DotTileKernel<L, AsF32<L>>, DotTileKernel<L, AsF16<L>>,
                   DotTileKernel<L, AsBF16<L>>},
      .packed_tile = {PackedTileKernel<L, D, CodeFormat::kBits8>,
                      PackedTileKernel<L, D, CodeFormat::kBits4>,
                      PackedTileKernel<L, D, CodeFormat::kBits3>,
                      PackedTileKernel<L, D, CodeFormat::kNf4>},
      .quantize = QuantizeKernel,
      .code_offsets = {kCodeOffset<D, CodeFormat::kBits8>, kCodeOffset<D, CodeFormat::kBits4>,
                       kCodeOffset<D, CodeFormat::kBits3>, kCodeOffset<D, CodeFormat::kNf4>},
      .panel_tokens = D::kPanelTokens,
      .norm = NormKernel<L>,
      .rope_halves = RopeHalvesKernel<L>,
      .rope_interleaved = RopeInterleavedKernel<L>,
      .write_kv = {WriteKvKernel<L, AsF32<L>>, WriteKvKernel<L, AsF16<L>>},
      .attend = {AttendKernel<L, AsF32<L>>, AttendKernel<L, AsF16<L>>},
      .expand = {ExpandKernel<L, AsF32<L>>, ExpandKernel<L, AsF16<L>>, ExpandKernel<L, AsBF16<L>>},
      .activate = {ActivateKernel<L, SiluGate>, ActivateKernel<L, GeluGate>,
                   ActivateKernel<L, GeluTanhGate>, ActivateKernel<L, ReluGate>},
      .weigh = WeighKernel<L>,
      .add = AddKernel<L>,
      .read_all = ReadAllKernel<L>,
      .multiply_add = MultiplyAddKernel<L>,
      .dot_quads = DotQuadsKernel<L, D>,
  };
}

}  // namespace
}  // namespace sauva
