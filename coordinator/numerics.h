#pragma once

#include <string>
#include <vector>

#include "proto/control.h"

namespace sauva {

// The numerics_id of a pipeline. `classes` has one backend class per stage of the
// assignment; where they differ, which layers run on which decides tokens too.
std::string PipelineNumericsId(const StageAssignment& assignment,
                               const std::vector<std::string>& classes);

}  // namespace sauva
