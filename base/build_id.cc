#include "base/build_id.h"

namespace sauva {

std::string BuildId() { return SAUVA_BUILD_ID; }

}  // namespace sauva
