#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns the status of `expr` from the enclosing function unless it is OK.
#define RETURN_IF_ERROR(expr)                                                    \
  do {                                                                           \
    if (absl::Status macro_status = (expr); !macro_status.ok()) return macro_status; \
  } while (false)

// Evaluates a StatusOr expression; returns its status, or moves its value into lhs.
#define ASSIGN_OR_RETURN(lhs, expr) \
  SAUVA_ASSIGN_OR_RETURN(SAUVA_JOIN(macro_result_, __LINE__), lhs, expr)
#define SAUVA_ASSIGN_OR_RETURN(result, lhs, expr) \
  auto result = (expr);                           \
  if (!result.ok()) return std::move(result).status(); \
  lhs = *std::move(result)
#define SAUVA_JOIN(a, b) SAUVA_JOIN2(a, b)
#define SAUVA_JOIN2(a, b) a##b
