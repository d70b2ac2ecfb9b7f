#!/usr/bin/env bash
# Makes the root file system of an image: Debian's libraries (scripts/runtime_packages.txt), the
# three services and the command line, a user, nothing else: no shell, no package manager.
# usage: build_root.sh [cpu|cuda] [FOLDER]
#   cpu   programs of build/release
#   cuda  programs of build/cuda with the libraries of the CUDA toolkit they are linked with; the
#         driver's libcuda comes from the host when the container starts
# Leaves FOLDER (default build/image-VARIANT) with root/ and the Dockerfile beside it. Needs
# mmdebstrap, a Debian mirror and root or user namespaces.
set -euo pipefail
cd "$(dirname "$0")/../.."
variant=${1:-cpu}
case "$variant" in
  cpu) bin=build/release/bin ;;
  cuda) bin=build/cuda/bin ;;
  *) echo "usage: build_root.sh [cpu|cuda] [FOLDER]" >&2; exit 2 ;;
esac
folder=${2:-build/image-$variant}
programs=(sauva sauva-gateway sauva-coordinator sauva-worker)
packages=$(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' scripts/runtime_packages.txt | paste -sd,)

rm -rf "$folder"
mkdir -p "$folder"
# Extracted, not installed: nothing runs while the image is made, and no shell is left in it.
mmdebstrap --quiet --variant=extract --include="$packages" \
  --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
  --dpkgopt='path-exclude=/usr/share/*' --dpkgopt='path-exclude=/var/*' \
  bookworm "$folder/root"
root=$folder/root
rm -rf "${root:?}"/{var,usr/share,usr/lib/systemd,etc/apt,boot,media,mnt,opt,srv,home,root}
mkdir -p "$root"/{models,proc,sys,dev,tmp,etc/sauva,usr/bin}
printf 'root:x:0:0:root:/:/sbin/nologin\nsauva:x:65532:65532:Sauva:/:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nsauva:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
for program in "${programs[@]}"; do
  install -m 0755 "$bin/$program" "$root/usr/bin/$program"
  strip "$root/usr/bin/$program"
done
if [ "$variant" = cuda ]; then
  # Libraries that are of no Debian package: the toolkit's.
  for program in "${programs[@]}"; do ldd "$bin/$program"; done |
    awk '/=> \/(usr\/local|opt)/ { print $3 }' | sort -u |
    xargs -r -I{} cp -L {} "$root/usr/lib/x86_64-linux-gnu/"
fi
for program in "${programs[@]}"; do
  if ! missing=$(chroot "$root" /lib64/ld-linux-x86-64.so.2 --list "/usr/bin/$program" 2>&1) ||
      grep -q 'not found' <<<"$missing"; then
    grep -E 'not found|error' <<<"$missing" >&2
    echo "build_root.sh: $program lacks libraries; add their packages to scripts/runtime_packages.txt" >&2
    exit 1
  fi
done
cp deploy/images/Dockerfile "$folder/Dockerfile"
echo "$folder/root: $(du -sm "$root" | cut -f1) MB; an image of it: docker build -t sauva:$variant $folder"
