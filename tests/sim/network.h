#pragma once

#include <any>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/sim/timeline.h"

namespace sauva::sim {

using NodeId = int;
using WireId = uint64_t;
// A value of one of the types that proto/ and the sessions define.
using Message = std::any;

// What runs on a node between a start and a kill.
class Process {
 public:
  virtual ~Process() = default;
  virtual void OnOpen(WireId wire, const Message& first) = 0;
  virtual void OnMessage(WireId wire, const Message& message) = 0;
  // The other end closed the wire, or the network lost it. Nothing follows.
  virtual void OnClosed(WireId wire, const absl::Status& status) = 0;
};

// Nodes and the wires between them. A wire is a stream of gRPC: each direction keeps its
// order; different wires do not wait for each other. A node can be killed, frozen and cut
// off; as with keepalive, a peer that is out of reach for longer than kKeepalive counts as
// gone.
class Network {
 public:
  static constexpr absl::Duration kKeepalive = absl::Seconds(4);
  static constexpr absl::Duration kConnectTimeout = absl::Seconds(1);

  Network(Timeline& timeline, Random& random) : timeline_(timeline), random_(random) {}

  // Delays of messages from now on.
  void SetDelay(absl::Duration low, absl::Duration high) {
    low_ = low;
    high_ = high;
  }
  // How long a node takes over each message that reaches it.
  void SetSlowness(NodeId node, absl::Duration each) { nodes_[node].slowness = each; }

  NodeId AddNode();
  void Start(NodeId node, Process* process);
  // The process ends without a word. Its wires break.
  void Kill(NodeId node);
  bool alive(NodeId node) const { return nodes_.at(node).process != nullptr; }
  bool frozen(NodeId node) const { return nodes_.at(node).frozen; }
  void Freeze(NodeId node, absl::Duration duration);
  void Partition(NodeId a, NodeId b, absl::Duration duration);
  // One of the node's wires breaks at both ends.
  void BreakSomeWire(NodeId node);

  // Work of the node's process, lost when it is killed and held back while it is frozen.
  void Local(NodeId node, absl::Duration delay, std::function<void()> what);

  WireId Open(NodeId from, NodeId to, Message first);
  void Send(NodeId from, WireId wire, Message message);
  // The other end learns of it after all that was sent before.
  void Close(NodeId from, WireId wire, absl::Status status);
  // Messages sent to the other end that have not reached it.
  int Backlog(NodeId from, WireId wire) const;

 private:
  struct Node {
    Process* process = nullptr;
    uint64_t incarnation = 0;
    bool frozen = false;
    absl::Time thaws_at;
    std::deque<std::function<void()>> held;
    absl::Duration slowness = absl::ZeroDuration();
    std::map<NodeId, absl::Time> cut_off_until;
  };
  struct End {
    NodeId node = 0;
    uint64_t incarnation = 0;
    bool open = true;
    absl::Time last_arrival = absl::InfinitePast();
    int on_the_way = 0;
  };
  struct Wire {
    End ends[2];
    bool accepted = false;
  };

  void Run(NodeId node, std::function<void()> what);
  void Transmit(WireId id, int to, std::function<void()> what);
  void Arrive(WireId id, int to, const std::function<void()>& what);
  void Break(WireId id, int end, const std::string& why);
  void BreakBoth(WireId id, const std::string& why);
  absl::Time CutOffUntil(NodeId a, NodeId b) const;
  int EndOf(NodeId node, const Wire& wire) const { return wire.ends[0].node == node ? 0 : 1; }
  std::vector<WireId> WiresOf(NodeId node) const;
  absl::Duration Delay() { return random_.Between(low_, high_); }

  Timeline& timeline_;
  Random& random_;
  absl::Duration low_ = absl::Microseconds(100);
  absl::Duration high_ = absl::Milliseconds(2);
  std::deque<Node> nodes_;
  std::map<WireId, Wire> wires_;
  WireId last_wire_ = 0;
};

}  // namespace sauva::sim
