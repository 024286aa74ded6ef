# alpine_glibc.sh DEBIAN ALPINE: give an Alpine root Debian's own OpenSSH and iptables, with the libraries they need.
#
# The Alpine image has neither, and no registry we may use has Alpine's packages. Debian's glibc lives in
# /lib/x86_64-linux-gnu behind its own loader in /lib64, where musl never looks, so the two do not meet.
debian=$1 alpine=$2
libraries=/lib/x86_64-linux-gnu
programs='/usr/sbin/sshd /usr/bin/ssh /usr/bin/scp /usr/bin/ssh-keygen /usr/lib/openssh/sftp-server
          /usr/sbin/xtables-nft-multi /usr/sbin/xtables-legacy-multi'

mkdir -p "$alpine/lib64" "$alpine$libraries" "$alpine/usr$libraries" "$alpine/usr/lib/openssh"
for program in $programs; do
    cp -p "$debian$program" "$alpine$program"
done
cp -pR "$debian/usr$libraries/xtables" "$alpine/usr$libraries/"

{
    for program in $programs; do echo "$program"; done
    cd "$debian" && ls ".$libraries/../../usr$libraries/xtables/" | sed "s#^#/usr$libraries/xtables/#"
} | while read -r file; do
    chroot "$debian" ldd "$file" || true
done | grep -oE '/[^ ]+\.so[^ ]*' | sort -u | while read -r library; do
    cp -Lp "$debian$library" "$alpine$libraries/"
done
cp -Lp "$debian/lib64/ld-linux-x86-64.so.2" "$alpine/lib64/"

for name in iptables ip6tables; do
    for action in '' -save -restore; do
        ln -sf xtables-nft-multi "$alpine/usr/sbin/$name$action"
        ln -sf xtables-legacy-multi "$alpine/usr/sbin/$name-legacy$action"
    done
done
