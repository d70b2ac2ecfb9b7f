#pragma once

#include <string>
#include <vector>

#include "proto/control.h"

namespace sauva {

// Names everything that decides a model's tokens: equal ids promise equal tokens for equal
// requests. A hash of model digest, weight format, KV type, numerics version and backend
// class; of a pipeline that mixes classes, also of which layers run on which.
// `classes` has one entry per stage of the assignment.
std::string NumericsId(const StageAssignment& assignment, const std::vector<std::string>& classes);

}  // namespace sauva
