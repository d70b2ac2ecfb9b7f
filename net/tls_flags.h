#pragma once

#include <CLI/CLI.hpp>

#include "net/tls.h"

namespace sauva {

// --tls-cert, --tls-key, --tls-ca and --insecure, the same on every service.
inline void AddTlsFlags(CLI::App& app, TlsOptions& tls) {
  app.add_option("--tls-cert", tls.certificate, "PEM file: this process's certificate chain");
  app.add_option("--tls-key", tls.key, "PEM file: the certificate's private key");
  app.add_option("--tls-ca", tls.ca, "PEM file: the authority that the services trust");
  app.add_flag("--insecure", tls.insecure, "allow plaintext on addresses beyond loopback");
}

}  // namespace sauva
