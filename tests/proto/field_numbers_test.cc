#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "sauva/v1/control.pb.h"
#include "sauva/v1/generation.pb.h"
#include "sauva/v1/stage.pb.h"

namespace sauva {
namespace {

void Describe(const google::protobuf::Descriptor& message, std::ostream& out) {
  for (int i = 0; i < message.field_count(); ++i) {
    const auto* field = message.field(i);
    out << message.full_name() << " " << field->number() << " " << field->name() << " "
        << (field->is_repeated() ? "repeated " : "") << field->type_name() << "\n";
  }
}

std::string DescribeFile(const google::protobuf::FileDescriptor& file) {
  std::ostringstream out;
  for (int i = 0; i < file.message_type_count(); ++i) Describe(*file.message_type(i), out);
  for (int i = 0; i < file.enum_type_count(); ++i) {
    const auto* type = file.enum_type(i);
    for (int j = 0; j < type->value_count(); ++j) {
      out << type->full_name() << " " << type->value(j)->number() << " "
          << type->value(j)->name() << "\n";
    }
  }
  for (int i = 0; i < file.service_count(); ++i) {
    const auto* service = file.service(i);
    for (int j = 0; j < service->method_count(); ++j) {
      out << service->method(j)->full_name() << "\n";
    }
  }
  return out.str();
}

// Field numbers are a promise to every client ever built: a line may be added to
// field_numbers.txt with a new field, none may change or go.
TEST(FieldNumbersTest, AreFrozen) {
  const std::string now = DescribeFile(*v1::GenerateRequest::descriptor()->file()) +
                          DescribeFile(*v1::LoadStage::descriptor()->file()) +
                          DescribeFile(*v1::StepHeader::descriptor()->file());
  std::ifstream in(std::string(SAUVA_SOURCE_DIR) + "/tests/proto/field_numbers.txt");
  std::stringstream frozen;
  frozen << in.rdbuf();
  EXPECT_EQ(now, frozen.str()) << "the whole list now:\n" << now;
}

}  // namespace
}  // namespace sauva
