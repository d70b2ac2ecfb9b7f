#pragma once

#include "net/process_health.h"

namespace sauva {

// Health that nobody asks for, for processes that tests run within their own.
inline ProcessHealth& UnservedHealth() {
  static const auto health = ProcessHealth::Start("");
  return **health;
}

}  // namespace sauva
