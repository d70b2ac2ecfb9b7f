// Every field of a spec against a transformer written plainly in double.
#include <cmath>
#include <functional>
#include <string>

#include "gtest/gtest.h"
#include "tests/engine/engine_testing.h"
#include "tests/engine/naive_transformer.h"

namespace sauva {
namespace {

struct Variant {
  std::string name;
  std::function<void(ModelSpec&)> change;
};

ModelSpec LlamaLike() {
  LayerSpec layer;
  layer.self_attention = {.num_heads = 4,
                          .num_kv_heads = 2,
                          .head_dim = 8,
                          .rope = RopeSpec{.rotary_dims = 8},
                          .score_scale = 1 / std::sqrt(8.0f)};
  layer.feed_forward = {.intermediate_size = 40};
  ModelSpec spec;
  spec.vocab_size = 61;
  spec.hidden_size = 24;
  spec.max_context = 96;
  spec.tied_head = true;
  spec.decoder.layers = {layer, layer, layer};
  return spec;
}

void ForLayers(ModelSpec& spec, const std::function<void(LayerSpec&)>& change) {
  for (LayerSpec& layer : spec.decoder.layers) change(layer);
}

std::vector<Variant> Variants() {
  return {
      {"Llama", [](ModelSpec&) {}},
      {"HeadOfItsOwn", [](ModelSpec& spec) { spec.tied_head = false; }},
      {"EmbeddingScale", [](ModelSpec& spec) { spec.embedding_scale = 4.5f; }},
      {"PostNorm",
       [](ModelSpec& spec) {
         ForLayers(spec, [](LayerSpec& layer) { layer.placement = NormPlacement::kPost; });
       }},
      {"SandwichNorm",
       [](ModelSpec& spec) {
         ForLayers(spec, [](LayerSpec& layer) { layer.placement = NormPlacement::kSandwich; });
       }},
      {"LayerNormWithBias",
       [](ModelSpec& spec) {
         const NormSpec norm = {.kind = NormKind::kLayerNorm, .epsilon = 1e-3f, .bias = true};
         ForLayers(spec, [&](LayerSpec& layer) { layer.norm = norm; });
         spec.decoder.final_norm = norm;
       }},
      {"AttentionBiases",
       [](ModelSpec& spec) {
         ForLayers(spec, [](LayerSpec& layer) {
           layer.self_attention.qkv_bias = true;
           layer.self_attention.out_bias = true;
         });
       }},
      {"PlainFeedForwardWithBias",
       [](ModelSpec& spec) {
         ForLayers(spec, [](LayerSpec& layer) {
           layer.feed_forward.gated = false;
           layer.feed_forward.bias = true;
           layer.feed_forward.activation = Activation::kGeluTanh;
         });
       }},
      {"GatedGelu",
       [](ModelSpec& spec) {
         ForLayers(spec,
                   [](LayerSpec& layer) { layer.feed_forward.activation = Activation::kGelu; });
       }},
      {"Relu",
       [](ModelSpec& spec) {
         ForLayers(spec,
                   [](LayerSpec& layer) { layer.feed_forward.activation = Activation::kRelu; });
       }},
      {"NoPositions",
       [](ModelSpec& spec) {
         ForLayers(spec, [](LayerSpec& layer) { layer.self_attention.rope.reset(); });
       }},
      {"PartialInterleavedScaledRope",
       [](ModelSpec& spec) {
         ForLayers(spec, [](LayerSpec& layer) {
           layer.self_attention.rope = RopeSpec{.theta = 500,
                                                .rotary_dims = 4,
                                                .layout = RopeLayout::kInterleaved,
                                                .linear_factor = 2};
         });
       }},
      {"WindowOnEverySecondLayer",
       [](ModelSpec& spec) { spec.decoder.layers[1].self_attention.window = 5; }},
      {"LayersOfUnlikeWidth",
       [](ModelSpec& spec) {
         spec.decoder.layers[1].self_attention.num_kv_heads = 1;
         spec.decoder.layers[2].feed_forward.intermediate_size = 17;
         spec.decoder.layers[2].self_attention.num_heads = 2;
       }},
  };
}

class BlockTest : public testing::TestWithParam<Variant> {};

TEST_P(BlockTest, LogitsAreThoseOfThePlainTransformer) {
  ModelSpec spec = LlamaLike();
  GetParam().change(spec);
  const MapCheckpoint checkpoint = RandomCheckpoint(spec, 7);
  std::vector<std::vector<float>> logits;
  const auto factory = [&]() -> absl::StatusOr<std::unique_ptr<Backend>> {
    return RecordLogits(MakeReferenceBackend(), logits);
  };
  for (const int stages : {1, 3}) {
    auto pipeline = LocalPipeline::Create(spec, checkpoint, factory,
                                          {.num_stages = stages, .max_step_tokens = 20});
    ASSERT_TRUE(pipeline.ok()) << pipeline.status();
    for (const int size : {1, 16, 17, 40}) {
      const std::vector<TokenId> prompt = RandomTokens(size, spec.vocab_size, 3);
      logits.clear();
      ASSERT_TRUE((*pipeline)->Generate({Continue(prompt, 1)}).ok());
      ASSERT_EQ(logits.size(), 1u);
      const std::vector<double> expected = NaiveLogits(spec, checkpoint, prompt);
      ASSERT_EQ(logits[0].size(), expected.size());
      for (size_t i = 0; i < expected.size(); ++i) {
        ASSERT_NEAR(logits[0][i], expected[i], 2e-5 * (1 + std::fabs(expected[i])))
            << "token " << i << " after " << size << " tokens over " << stages << " stages";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Specs, BlockTest, testing::ValuesIn(Variants()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace sauva
