// Pipelines that span workers of unlike backends.
#include <set>

#include "coordinator/numerics.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/coordinator/story.h"

namespace sauva {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

StageAssignment Cut(const std::vector<int>& ends) {
  StageAssignment assignment{.model = {"m", "digest"}};
  int first = 0;
  for (const int end : ends) {
    assignment.stages.push_back({.worker_id = "w", .address = "a", .layers = {first, end}});
    first = end;
  }
  return assignment;
}

TEST(MixTest, TheNumericsIdOfOneClassDoesNotHangOnTheCut) {
  const std::string whole = PipelineNumericsId(Cut({8}), {"cpu"});
  EXPECT_EQ(PipelineNumericsId(Cut({3, 8}), {"cpu", "cpu"}), whole);
  EXPECT_NE(PipelineNumericsId(Cut({8}), {"cuda-sm90"}), whole);
}

TEST(MixTest, EachMixtureOfClassesHasANumericsIdOfItsOwn) {
  const std::set<std::string> ids = {
      PipelineNumericsId(Cut({8}), {"cpu"}),
      PipelineNumericsId(Cut({8}), {"cuda-sm90"}),
      PipelineNumericsId(Cut({3, 8}), {"cpu", "cuda-sm90"}),
      PipelineNumericsId(Cut({4, 8}), {"cpu", "cuda-sm90"}),
      PipelineNumericsId(Cut({3, 8}), {"cuda-sm90", "cpu"}),
      PipelineNumericsId(Cut({3, 8}), {"cuda-sm80", "cpu"}),
      PipelineNumericsId(Cut({3, 5, 8}), {"cpu", "cuda-sm90", "cpu"}),
  };
  EXPECT_EQ(ids.size(), 7u);
}

TEST(MixTest, UnlikeWorkersServeTogetherOnlyWhereMixingIsAllowed) {
  for (const BackendMixing mixing : {BackendMixing::kOneClass, BackendMixing::kAnyClass}) {
    CoordinatorConfig config = Story::Config();
    config.stages = 2;
    config.expected_workers = 2;
    config.mixing = mixing;
    Story story(config);
    story.Prepare("w1").hello.backend_class = "cuda-sm90";
    story.JoinAll(2);
    story.Advance(absl::Seconds(1));
    if (mixing == BackendMixing::kOneClass) {
      EXPECT_THAT(story.Status().pipelines, IsEmpty());
      EXPECT_THAT(story.Status().placement_error, HasSubstr("1 free cuda-sm90 workers"));
    } else {
      EXPECT_TRUE(story.OnlyPipeline().ready);
    }
  }
}

}  // namespace
}  // namespace sauva
