#pragma once

#include <memory>

#include "kernels/backend.h"

namespace sauva::testing {

// A backend whose ops take rows and vectors in host memory: copies them to `inner`'s memory,
// runs the op there and copies the results back. So the op tests of the host backends run on
// a device.
std::unique_ptr<Backend> MakeCopyingBackend(std::unique_ptr<Backend> inner);

}  // namespace sauva::testing
