#include "tests/sim/network.h"

#include <algorithm>

#include "base/check.h"

namespace sauva::sim {

NodeId Network::AddNode() {
  nodes_.emplace_back();
  return static_cast<NodeId>(nodes_.size()) - 1;
}

void Network::Start(NodeId node, Process* process) {
  Check(!alive(node), "a node runs one process at a time");
  nodes_[node].process = process;
  ++nodes_[node].incarnation;
}

void Network::Kill(NodeId id) {
  Node& node = nodes_[id];
  node.process = nullptr;
  node.frozen = false;
  node.held.clear();
  for (const WireId wire_id : WiresOf(id)) {
    Wire& wire = wires_.at(wire_id);
    const int own = EndOf(id, wire);
    wire.ends[own].open = false;
    // The peer's kernel hears of it unless nothing gets through.
    const bool cut_off = CutOffUntil(id, wire.ends[1 - own].node) > timeline_.now();
    timeline_.After(cut_off ? kKeepalive : Delay(),
                    [this, wire_id, own] { Break(wire_id, 1 - own, "connection reset"); });
  }
}

void Network::Freeze(NodeId id, absl::Duration duration) {
  Node& node = nodes_[id];
  if (node.process == nullptr || node.frozen) return;
  node.frozen = true;
  node.thaws_at = timeline_.now() + duration;
  const uint64_t incarnation = node.incarnation;
  timeline_.After(duration, [this, id, incarnation] {
    Node& thawed = nodes_[id];
    if (thawed.incarnation != incarnation || !thawed.frozen) return;
    thawed.frozen = false;
    std::deque<std::function<void()>> held;
    held.swap(thawed.held);
    for (const auto& what : held) {
      if (thawed.incarnation == incarnation) Run(id, what);
    }
  });
  if (duration <= kKeepalive) return;
  for (const WireId wire : WiresOf(id)) {
    timeline_.After(kKeepalive, [this, wire] { BreakBoth(wire, "no answer to keepalive"); });
  }
}

void Network::Partition(NodeId a, NodeId b, absl::Duration duration) {
  const absl::Time until = timeline_.now() + duration;
  for (const auto& [x, y] : {std::pair(a, b), std::pair(b, a)}) {
    absl::Time& known = nodes_[x].cut_off_until.try_emplace(y, absl::InfinitePast()).first->second;
    known = std::max(known, until);
  }
  if (duration <= kKeepalive) return;
  for (const auto& [id, wire] : wires_) {
    if ((wire.ends[0].node == a && wire.ends[1].node == b) ||
        (wire.ends[0].node == b && wire.ends[1].node == a)) {
      timeline_.After(kKeepalive, [this, id = id] { BreakBoth(id, "no answer to keepalive"); });
    }
  }
}

void Network::BreakSomeWire(NodeId node) {
  const std::vector<WireId> wires = WiresOf(node);
  if (wires.empty()) return;
  BreakBoth(wires[random_.Next() % wires.size()], "connection reset");
}

void Network::Local(NodeId id, absl::Duration delay, std::function<void()> what) {
  const uint64_t incarnation = nodes_[id].incarnation;
  timeline_.After(delay, [this, id, incarnation, what = std::move(what)] {
    if (nodes_[id].incarnation == incarnation) Run(id, what);
  });
}

// On the node's process, now or when it thaws.
void Network::Run(NodeId id, std::function<void()> what) {
  Node& node = nodes_[id];
  if (node.process == nullptr) return;
  if (node.frozen) {
    node.held.push_back(std::move(what));
  } else {
    what();
  }
}

absl::Time Network::CutOffUntil(NodeId a, NodeId b) const {
  const auto& cuts = nodes_[a].cut_off_until;
  const auto found = cuts.find(b);
  return found == cuts.end() ? absl::InfinitePast() : found->second;
}

std::vector<WireId> Network::WiresOf(NodeId node) const {
  std::vector<WireId> ids;
  for (const auto& [id, wire] : wires_) {
    if (wire.ends[EndOf(node, wire)].node == node && wire.ends[EndOf(node, wire)].open &&
        wire.ends[EndOf(node, wire)].incarnation == nodes_[node].incarnation) {
      ids.push_back(id);
    }
  }
  return ids;
}

WireId Network::Open(NodeId from, NodeId to, Message first) {
  const WireId id = ++last_wire_;
  Wire& wire = wires_[id];
  wire.ends[0] = {.node = from, .incarnation = nodes_[from].incarnation};
  wire.ends[1] = {.node = to, .incarnation = nodes_[to].incarnation};
  Transmit(id, 1, [this, id, to, first = std::move(first)] {
    wires_.at(id).accepted = true;
    nodes_[to].process->OnOpen(id, first);
  });
  // Whoever does not take the connection in time is not there.
  const bool reachable = alive(to) && CutOffUntil(from, to) <= timeline_.now();
  timeline_.After(reachable   ? kKeepalive
                  : alive(to) ? kConnectTimeout
                              : Delay(),
                  [this, id] {
                    const auto wire_now = wires_.find(id);
                    if (wire_now != wires_.end() && !wire_now->second.accepted)
                      BreakBoth(id, "no connection");
                  });
  return id;
}

void Network::Send(NodeId from, WireId id, Message message) {
  const auto found = wires_.find(id);
  if (found == wires_.end() || !found->second.ends[EndOf(from, found->second)].open) return;
  const int to = 1 - EndOf(from, found->second);
  Transmit(id, to, [this, id, to, message = std::move(message)] {
    nodes_[wires_.at(id).ends[to].node].process->OnMessage(id, message);
  });
}

void Network::Close(NodeId from, WireId id, absl::Status status) {
  const auto found = wires_.find(id);
  if (found == wires_.end()) return;
  End& own = found->second.ends[EndOf(from, found->second)];
  if (!own.open) return;
  own.open = false;
  const int to = 1 - EndOf(from, found->second);
  Transmit(id, to, [this, id, to, status = std::move(status)] {
    End& end = wires_.at(id).ends[to];
    end.open = false;
    nodes_[end.node].process->OnClosed(id, status);
  });
}

int Network::Backlog(NodeId from, WireId id) const {
  const auto found = wires_.find(id);
  return found == wires_.end() ? 0 : found->second.ends[1 - EndOf(from, found->second)].on_the_way;
}

void Network::Transmit(WireId id, int to, std::function<void()> what) {
  End& end = wires_.at(id).ends[to];
  end.last_arrival = std::max(end.last_arrival, timeline_.now() + Delay());
  end.last_arrival += nodes_[end.node].slowness;
  ++end.on_the_way;
  timeline_.At(end.last_arrival, [this, id, to, what = std::move(what)] { Arrive(id, to, what); });
}

void Network::Arrive(WireId id, int to, const std::function<void()>& what) {
  Wire& wire = wires_.at(id);
  End& end = wire.ends[to];
  const absl::Time heals_at = CutOffUntil(end.node, wire.ends[1 - to].node);
  if (heals_at > timeline_.now()) {
    end.last_arrival = std::max(end.last_arrival, heals_at);
    timeline_.At(heals_at, [this, id, to, what] { Arrive(id, to, what); });
    return;
  }
  --end.on_the_way;
  if (nodes_[end.node].incarnation != end.incarnation) return;
  Run(end.node, [this, id, to, what] {
    if (wires_.at(id).ends[to].open) what();
  });
}

void Network::Break(WireId id, int to, const std::string& why) {
  const End& end = wires_.at(id).ends[to];
  if (!end.open || nodes_[end.node].incarnation != end.incarnation) return;
  Run(end.node, [this, id, to, why] {
    End& broken = wires_.at(id).ends[to];
    if (!broken.open) return;
    broken.open = false;
    // An end that nothing has reached yet knows of no wire.
    if (to == 0 || wires_.at(id).accepted) {
      nodes_[broken.node].process->OnClosed(id, absl::UnavailableError(why));
    }
  });
}

void Network::BreakBoth(WireId id, const std::string& why) {
  Break(id, 0, why);
  Break(id, 1, why);
}

}  // namespace sauva::sim
