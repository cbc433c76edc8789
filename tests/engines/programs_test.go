package engines

import (
	"os"
	"strings"
	"testing"
	"time"
)

// programLimit bounds one row of programs, which work for minutes under emulation.
const programLimit = 15 * time.Minute

// TestPrograms runs real programs, from Debian's packages (scripts/programs-image.sh),
// and asserts what their users see.
func TestPrograms(t *testing.T) {
	needPrograms(t)
	runRows(t, programs(programRows), dockerAfter)
}

// TestProgramsApt is apart, as it needs a network that leads to the mirrors.
func TestProgramsApt(t *testing.T) {
	needPrograms(t)
	work := t.TempDir()
	env := append(os.Environ(), "RT=runc", "N="+strings.ToLower(t.Name()))
	out, errs, err := bash(work, env, prelude+aptSetup+`apt_ apt-get update -q 2>&1; echo "status $?"`, rowLimit)
	if err != nil || !strings.HasSuffix(strings.TrimSpace(out), "status 0") {
		t.Skipf("apt's mirrors cannot be reached from a container, with runc either: %v: %s%s", err, out, errs)
	}
	runRows(t, programs(aptRows), dockerAfter)
}

func needPrograms(t *testing.T) {
	if os.Getenv("RUNV_ENGINES_PROGRAMS") == "" {
		t.Skip("no image of programs (try: make test-programs)")
	}
}

// programs gives rows the limit of programs.
func programs(rows []row) []row {
	for i := range rows {
		rows[i].limit = programLimit
	}
	return rows
}

// aptSetup has apt of a container use what the machine's does: mirrors and proxy. The
// name server is slirp4netns's, which asks the machine's.
const aptSetup = `
apt-get indextargets --format '$(CREATED_BY) $(RELEASE) $(COMPONENT) $(REPO_URI)' | awk '$1 == "Packages" && $2 ~ /^bookworm/ { print "deb", $4, $2, $3 }' | sort -u >sources
apt-config dump | grep -i '^Acquire::https*::Proxy' >proxy
apt_() { run --rm --dns 10.0.2.3 -v $PWD/sources:/etc/apt/sources.list:ro -v $PWD/proxy:/etc/apt/apt.conf.d/proxy:ro programs "$@"; }
`

var aptRows = []row{
	{name: "install", script: aptSetup + `apt_ sh -c 'apt-get update -q && apt-get install -q -y --no-install-recommends hello && hello && dpkg -s hello | grep Status' >out 2>&1; echo $?; tail -n 2 out; cat out >&2`,
		want: "0\nHello, world!\nStatus: install ok installed"},
}

var programRows = []row{
	{name: "nginx", script: `mkdir www; echo page >www/index.html; head -c 3000000 /dev/urandom >www/blob
run -d --name $N -p 127.0.0.1::80 -v $PWD/www:/var/www/html:ro programs nginx -g 'daemon off;' >/dev/null
a=$(docker port $N 80); until_ curl -fs http://$a/; curl -fs http://$a/; curl -fs http://$(docker inspect -f '{{.NetworkSettings.IPAddress}}' $N)/
seq 20 | xargs -P5 -I{} sh -c "curl -fs http://$a/blob | cmp - www/blob && echo same" | sort | uniq -c | tr -s ' '
curl -s -o /dev/null -w '%{http_code}\n' http://$a/nosuch
is() { [ "$(curl -fs http://$a/)" = "$1" ]; }
echo 'edited in place' >www/index.html; until_ is 'edited in place'; curl -fs http://$a/
echo 'put in its place' >www/new; mv www/new www/index.html; until_ is 'put in its place'; curl -fs http://$a/
docker exec $N nginx -s reload 2>/dev/null; echo $?; curl -fs http://$a/
docker exec $N grep -c 'GET /blob HTTP/1.1" 200 3000000' /var/log/nginx/access.log
docker stop $N >/dev/null; state $N`,
		want: "page\npage\n 20 same\n404\nedited in place\nput in its place\n0\nput in its place\n20\nexited 0"},

	{name: "python-http", script: `mkdir d; echo a >d/a; head -c 2000000 /dev/urandom >d/b
run -d --name $N -p 127.0.0.1::8000 -v $PWD/d:/d:ro -w /d programs python3 -u -m http.server >/dev/null
a=$(docker port $N 8000); until_ curl -fs http://$a/a; curl -fs http://$a/a; curl -fs http://$a/b | cmp - d/b && echo same
curl -fs http://$a/ | grep -c '<li>'; docker logs $N 2>&1 | grep -c 'GET /b HTTP/1.1" 200'; docker kill -s INT $N >/dev/null; docker wait $N; docker logs $N 2>&1 | tail -n 1`,
		want: "a\nsame\n2\n1\n0\nKeyboard interrupt received, exiting."},

	// The rates are for the log. What redis acknowledged with appendfsync is there after it was killed.
	{name: "redis", script: `redis() { docker exec $N redis-cli "$@"; }
up() { [ "$(redis ping)" = PONG ]; }
docker volume create --label row=$N $N >/dev/null
run -d --name $N -v $N:/var/lib/redis --user redis programs redis-server --bind '* -::*' --protected-mode no --dir /var/lib/redis --appendonly yes --appendfsync always >/dev/null
until_ up; ip=$(docker inspect -f '{{.NetworkSettings.IPAddress}}' $N)
rates() { awk -F'","' 'NR > 1 && $2 > 0 { print substr($1, 2) }' | tr '\n' ' '; echo; }
docker exec $N redis-benchmark --csv -n 1000 -c 10 -t set,get,incr,lpush,mset | rates
docker run --label row=$N --rm programs redis-benchmark -h $ip --csv -n 2000 -c 10 -P 10 -t set,get | rates
redis bgsave; saved() { redis info persistence | grep -q rdb_bgsave_in_progress:0; }; until_ saved; redis info persistence | tr -d '\r' | grep rdb_last_bgsave_status
docker run -d --label row=$N --name $N-client programs sh -c "yes incr n | stdbuf -oL redis-cli -h $ip 2>/dev/null" >/dev/null
acked() { docker logs $N-client | grep -x '[0-9][0-9]*' | tail -n 1; }; enough() { [ $(acked) -ge 100 ]; }; until_ enough
docker kill $N >/dev/null; docker wait $N; docker kill $N-client >/dev/null; docker start $N >/dev/null; until_ up
n=$(redis get n) a=$(acked); echo $a acknowledged, $n found >&2; [ $n -ge $a ] && [ $n -le $((a+1)) ] && echo none lost
docker stop $N >/dev/null; state $N`,
		want: "SET GET INCR LPUSH MSET (10 keys) \nSET GET \nBackground saving started\nrdb_last_bgsave_status:ok\n137\nnone lost\nexited 0"},

	{name: "postgresql", script: postgresql, want: `initdb 0
pgbench -i 0
137 2 2 recovered
all of 1
all of 2
t|t|t|t
137 recovered
all of 3
all of 4
t|t|t|t
exited 0
Bad checksums:  0`},

	// SQLite's log of this kind is shared by its processes in a mapped file.
	{name: "sqlite", script: `cat >s.py <<-P
	import multiprocessing, sqlite3
	def work(k):
	  c = sqlite3.connect("/d/db", timeout=100)
	  for i in range(50):
	    with c: c.execute("insert into t values (?, ?)", (k, i))
	c = sqlite3.connect("/d/db")
	print(c.execute("pragma journal_mode = wal").fetchone()[0])
	c.execute("create table t (k, i)"); c.commit()
	ps = [multiprocessing.Process(target=work, args=(k,)) for k in range(3)]
	for p in ps: p.start()
	for p in ps: p.join()
	print(*c.execute("select count(*), count(distinct k) from t").fetchone(), c.execute("pragma integrity_check").fetchone()[0])
P
docker volume create --label row=$N $N >/dev/null; mkdir d
for v in $N $PWD/d; do run --rm -v $PWD/s.py:/s.py:ro -v $v:/d programs python3 /s.py; done
run -d --name $N -v $N:/d programs python3 -c 'import sqlite3, time; c = sqlite3.connect("/d/db", isolation_level=None); c.execute("begin immediate"); print("held", flush=True); time.sleep(1000)' >/dev/null
held() { docker logs $N | grep -q held; }; until_ held
docker exec $N python3 -c 'import sqlite3; sqlite3.connect("/d/db", timeout=0.5).execute("begin immediate")' 2>&1 | tail -n 1`,
		want: "wal\n150 3 ok\nwal\n150 3 ok\nsqlite3.OperationalError: database is locked"},

	// The Go toolchain is the machine's, the cache empty.
	{name: "go-build", script: `mkdir -p src/count cache
printf 'module example.test/words\ngo 1.20\n' >src/go.mod
cat >src/count/count.go <<-P
	package count
	import "strings"
	func Words(s string) map[string]int {
		m := map[string]int{}
		for _, w := range strings.Fields(s) { m[w] += 1 }
		return m
	}
P
cat >src/main.go <<-P
	package main
	import ("fmt"; "io"; "os"; "example.test/words/count")
	func main() {
		b, _ := io.ReadAll(os.Stdin)
		fmt.Println(count.Words(string(b)))
	}
P
go_() { run --rm -m 1g --cpus 2 -v $(go env GOROOT):/usr/local/go:ro -v $PWD/src:/src -v $PWD/cache:/cache -e GOCACHE=/cache -e GOTOOLCHAIN=local -e GOFLAGS=-buildvcs=false -e CGO_ENABLED=0 -e HOME=/tmp -w /src programs "$@"; }
go_ /usr/local/go/bin/go build -o words .; echo $?; echo a b a | src/words; stat -c %U:%a src/words
go_ /usr/local/go/bin/go build -x -o words . 2>&1 | grep -c /compile
sed -i 's/+= 1/+= 10/' src/count/count.go; go_ sh -c '/usr/local/go/bin/go build -o words . && echo a b a | ./words'`,
		want: "0\nmap[a:2 b:1]\nroot:755\n0\nmap[a:20 b:10]"},

	{name: "strace-and-gdb", script: `cat >p.c <<-P
	#include <stdio.h>
	#include <unistd.h>
	int leaf(int n) { printf("leaf %d\\n", n); return n * 2; }
	int middle(int n) { return leaf(n + 1) + 1; }
	int main(int argc, char **argv) { return middle(argc + 20) == 45 ? 7 : 1; }
P
in_() { run --rm --cap-add SYS_PTRACE -v $PWD:/w -w /w programs "$@"; }
in_ gcc -g -O0 -o p p.c
in_ sh -c 'strace -f -o t -e trace=write,exit_group ./p; echo $?; grep -cE "write\(1, \"leaf 22.n\", 8\) += 8" t; grep -o "exited with [0-9]*" t; strace -fc -o sum sh -c "ls / | wc -l" >/dev/null && grep -c execve sum'
in_ gdb -q -batch -ex 'break leaf' -ex run -ex bt -ex 'print n' -ex finish -ex continue ./p 2>&1 | grep -E '^#|^\$|^Value|exited' | sed -E 's/0x[0-9a-f]+/ADDR/g; s/process [0-9]+/process N/'
run -d --name $N --cap-add SYS_PTRACE programs sleep 1000 >/dev/null
docker exec $N sh -c 'gdb -q -batch -p 1 -ex bt 2>/dev/null | grep -o clock_nanosleep | sort -u; timeout -s INT 2 strace -p 1 2>&1 | grep -o "Process 1 attached"; grep State /proc/1/status'`,
		want: "leaf 22\n7\n1\nexited with 7\n1\n#0  leaf (n=22) at p.c:3\n#1  ADDR in middle (n=21) at p.c:4\n#2  ADDR in main (argc=1, argv=ADDR) at p.c:5\n$1 = 22\nValue returned is $2 = 44\n[Inferior 1 (process N) exited with code 07]\nclock_nanosleep\nProcess 1 attached\nState:\tS (sleeping)"},

	{name: "jvm", script: `cat >Sum.java <<-P
	import java.nio.file.*; import java.util.concurrent.*; import java.util.stream.*;
	public class Sum {
		public static void main(String[] a) throws Exception {
			ExecutorService pool = Executors.newFixedThreadPool(4);
			long sum = 0;
			for (Future<Long> f : pool.invokeAll(IntStream.range(0, 8).mapToObj(i -> (Callable<Long>) () -> LongStream.range(0, 1000).map(x -> x * i).sum()).collect(Collectors.toList()))) sum += f.get();
			pool.shutdown();
			Files.writeString(Path.of("out"), "sum " + sum);
			System.out.println(Files.readString(Path.of("out")) + " on " + Runtime.getRuntime().availableProcessors());
			Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook")));
			System.exit(3);
		}
	}
P
in_() { run --rm -m 512m --cpus 1 -v $PWD:/w -w /w programs "$@"; }
in_ java Sum.java; echo $?; cat out; echo
in_ sh -c 'javac Sum.java && java -cp . Sum; echo $?; java -XshowSettings:system -version 2>&1 | grep -E "Memory Limit|Effective CPU Count" | sort'`,
		want: "sum 13986000 on 1\nhook\n3\nsum 13986000\nsum 13986000 on 1\nhook\n3\n    Effective CPU Count: 1\n    Memory Limit: 512.00M"},
}

// postgresql kills a server twice under load: as Docker does, and its process on the
// host. Clients write numbered rows and note each that was acknowledged; after
// recovery these are there, and pgbench's sums are equal. The second time the clients
// are killed, too: of a VM that vanishes their kernel hears as little as of a machine's
// loss of power.
const postgresql = `data=/var/lib/postgresql/data
pg() { docker run --label row=$N -v $N:/var/lib/postgresql --user postgres "$@"; }
psql_() { docker exec $N /opt/pg/psql -XAtq postgres -c "$1"; }
ready() { until_ docker exec $N /opt/pg/pg_isready -q; }
docker volume create --label row=$N $N >/dev/null
pg --rm --runtime $RT programs sh -c "/opt/pg/initdb -k -A trust -D $data >/dev/null && echo host all all all trust >>$data/pg_hba.conf"; echo initdb $?
pg --runtime $RT -d --name $N --stop-signal INT programs /opt/pg/postgres -D $data -c listen_addresses='*' >/dev/null
ready; docker exec $N /opt/pg/pgbench -i -q postgres >/dev/null 2>&1; echo pgbench -i $?
psql_ 'create table numbers (client int, n int, primary key (client, n))'
client() { docker run --label row=$N -d --name $N-$1 programs sh -c 'i=0; while :; do i=$((i+1)); printf "insert into numbers values ('$1', %d);\n\\\\echo %d\n" $i $i; done |
	stdbuf -oL /opt/pg/psql -Xq -v ON_ERROR_STOP=1 -h '$2' -U postgres' >/dev/null; }
acked() { docker logs $N-$1 2>/dev/null | tail -n 1 | grep . || echo 0; }
enough() { [ $(acked $1) -ge 50 ] && [ $(acked $2) -ge 50 ]; }
load() {
	local ip=$(docker inspect -f '{{.NetworkSettings.IPAddress}}' $N)
	docker exec -d $N /opt/pg/pgbench -n -c 2 -T 1000 postgres
	client $1 $ip; client $2 $ip; until_ enough $1 $2
}
recovered() {
	local c n=$(docker logs $N 2>&1 | grep -c 'automatic recovery in progress')
	docker start $N >/dev/null; ready
	[ $(docker logs $N 2>&1 | grep -c 'automatic recovery in progress') = $((n+1)) ] && echo recovered
	for c in $1 $2; do
		echo client $c: $(acked $c) acknowledged, $(psql_ "select count(*), max(n) from numbers where client = $c") >&2
		psql_ "select 'all of $c' from numbers where client = $c having count(*) = max(n) and max(n) between $(acked $c) and $(acked $c) + 1"
	done
	psql_ "select (select sum(abalance) from pgbench_accounts) = sum(delta), (select sum(bbalance) from pgbench_branches) = sum(delta), (select sum(tbalance) from pgbench_tellers) = sum(delta), count(*) > 0 from pgbench_history"
}
load 1 2; docker kill $N >/dev/null; docker wait $N $N-1 $N-2 | tr '\n' ' '; recovered 1 2
load 3 4; kill -9 $(docker inspect -f '{{.State.Pid}}' $N); docker wait $N | tr '\n' ' '; docker stop -t 0 $N-3 $N-4 >/dev/null; recovered 3 4
docker stop -t 100 $N >/dev/null; state $N
pg --rm programs /opt/pg/pg_checksums -D $data | grep Bad`
