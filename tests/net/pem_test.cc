#include "net/pem.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/time/clock.h"
#include "tests/temporary_directory.h"

namespace sauva {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// Two certificates of two days, each its own authority, made by openssl.
class PemTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<TemporaryDirectory>();
    folder_ = directory_->path();
    for (const std::string name : {"ours", "other"}) {
      const std::string p = (folder_ / name).string();
      const std::string command =
          "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
          "-subj /CN=localhost -keyout " +
          p + ".key -out " + p + ".crt 2>/dev/null";
      ASSERT_EQ(std::system(command.c_str()), 0);
    }
  }
  static PemFile Read(const std::string& flag, const std::string& file) {
    auto read = ReadPem(flag, (folder_ / file).string());
    EXPECT_TRUE(read.ok()) << read.status();
    return *std::move(read);
  }

  const PemFile chain_ = Read("--tls-cert", "ours.crt");
  const PemFile key_ = Read("--tls-key", "ours.key");
  const absl::Time now_ = absl::Now();
  static inline std::unique_ptr<TemporaryDirectory> directory_;
  static inline std::filesystem::path folder_;
};

TEST_F(PemTest, AChainItsKeyAndAuthoritiesAreTaken) {
  EXPECT_EQ(CheckCertificate(chain_, key_, now_), absl::OkStatus());
  const PemFile two{.name = "--tls-ca two", .text = chain_.text + Read("", "other.crt").text};
  EXPECT_EQ(CheckCertificate(two, key_, now_), absl::OkStatus()) << "the first is the process's";
  EXPECT_EQ(CheckAuthorities(two, now_), absl::OkStatus());
}

TEST_F(PemTest, TheKeyOfAnotherCertificateIsNamedWithBoth) {
  EXPECT_THAT(Message(CheckCertificate(chain_, Read("--tls-key", "other.key"), now_)),
              AllOf(HasSubstr("--tls-key "), HasSubstr("other.key: is not the key"),
                    HasSubstr("ours.crt")));
}

TEST_F(PemTest, ACertificateOutOfDateIsNamedWithItsTimes) {
  for (const absl::Time now : {now_ + absl::Hours(72), now_ - absl::Hours(72)}) {
    const std::string today = absl::FormatTime("%Y-%m-%d", now, absl::UTCTimeZone());
    EXPECT_THAT(
        Message(CheckCertificate(chain_, key_, now)),
        AllOf(HasSubstr("ours.crt: its certificate is valid from 2"), HasSubstr("it is " + today)));
    EXPECT_THAT(Message(CheckAuthorities(chain_, now)), HasSubstr("it is " + today));
  }
}

TEST_F(PemTest, FilesOfAnotherKindAreNamed) {
  EXPECT_THAT(Message(CheckCertificate(key_, chain_, now_)),
              HasSubstr("ours.key: holds no certificate"));
  EXPECT_THAT(Message(CheckCertificate(chain_, chain_, now_)),
              HasSubstr("ours.crt: holds no private key"));
  EXPECT_THAT(Message(CheckAuthorities(key_, now_)), HasSubstr("ours.key: holds no certificate"));
  PemFile broken = chain_;
  broken.text.replace(broken.text.size() / 2, 1, "!");
  EXPECT_THAT(Message(CheckCertificate(broken, key_, now_)),
              HasSubstr("ours.crt: certificate 1 in it cannot be read"));
  const std::string plain = (folder_ / "plain").string();
  std::ofstream(plain) << "text";
  EXPECT_THAT(Message(ReadPem("--tls-ca", plain).status()),
              HasSubstr("--tls-ca " + plain + ": not a readable PEM file"));
}

TEST_F(PemTest, AKeyWithAPasswordIsRefusedWithoutAQuestion) {
  const std::string locked = (folder_ / "locked.key").string();
  const std::string command = "openssl ec -aes128 -passout pass:x -in " +
                              (folder_ / "ours.key").string() + " -out " + locked + " 2>/dev/null";
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_THAT(Message(CheckCertificate(chain_, Read("--tls-key", "locked.key"), now_)),
              HasSubstr("locked.key: holds no private key, or one with a password"));
}

}  // namespace
}  // namespace sauva
