#pragma once

#include "kernels/cpu/attention.inc.h"
#include "kernels/cpu/dot.inc.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_tile.inc.h"
#include "kernels/cpu/quantize.inc.h"
#include "kernels/cpu/rates.inc.h"
#include "kernels/cpu/rows.inc.h"

namespace sauva {
namespace {

// All kernels of lane type L with the integer dot products of D. Gates stand in the order
// of GateKind, storages in that of Storage and KvStorage, codes in that of CodeFormat.
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
      .tile_tokens = TileTokens<D>,
      .norm = NormKernel<L>,
      .rope_halves = RopeHalvesKernel<L>,
      .rope_interleaved = RopeInterleavedKernel<L>,
      .write_kv = {WriteFloatsKernel<L, AsF32<L>>, WriteFloatsKernel<L, AsF16<L>>, WriteInt8Kernel},
      .attend = {AttendKernel<L, FloatsBlock<L, AsF32<L>>>,
                 AttendKernel<L, FloatsBlock<L, AsF16<L>>>, AttendKernel<L, Int8Block<L>>},
      .attend_span = {AttendSpanKernel<L, FloatsBlock<L, AsF32<L>>>,
                      AttendSpanKernel<L, FloatsBlock<L, AsF16<L>>>,
                      AttendSpanKernel<L, Int8Block<L>>},
      .merge_spans = MergeSpansKernel<L>,
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
