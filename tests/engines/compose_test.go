package engines

import "testing"

func TestCompose(t *testing.T) { runRows(t, composeRows, dockerAfter) }

// composeFile has a service that needs another one by its name.
const composeFile = `
cat >compose.yml <<-C
	services:
	  web: { image: busybox, runtime: $RT, labels: { row: "$N" }, volumes: [ "./www:/www:ro" ], mem_limit: 64m,
	    command: [ httpd, -f, -h, /www ], healthcheck: { test: "wget -q -O - http://127.0.0.1/i", interval: 1s } }
	  app: { image: busybox, runtime: $RT, labels: { row: "$N" }, depends_on: { web: { condition: service_healthy } }, ports: [ "127.0.0.1::80" ],
	    environment: [ "A=b" ], volumes: [ "data:/data" ], stop_signal: TERM,
	    command: [ sh, -c, "trap 'echo term; exit 0' TERM; wget -q -O - http://web/i; echo \$\$A >>/data/n; httpd -h /data; while :; do sleep 0.1; done" ] }
	volumes: { data: { labels: { row: "$N" } } }
	networks: { default: { labels: { row: "$N" } } }
C
mkdir www; echo page >www/i; compose() { docker-compose --no-ansi -p $N -f compose.yml "$@" 2>>log </dev/null; }
`

var composeRows = []row{
	{name: "services", script: composeFile + `compose up -d; logged() { compose logs --no-color app | sed -n 's/^app[-_0-9]* *| //p'; }; until_ eval 'logged | grep page'; logged; compose ps -q | wc -l; compose ps | grep -c Up
get() { curl -fs http://$(compose port app 80)/n; }; until_ get; get; compose exec -T app wget -q -O - http://web/i; compose exec -T app sh -c 'cat; exit 4' ; echo $?
compose restart app; until_ eval 'get | grep -c b | grep 2'; get; compose run --rm -T app sh -c 'echo $A; cat /data/n'; compose stop -t 5; logged | tail -n 1; compose ps | grep -c 'Exit 0'; compose start; until_ get; compose up -d --scale app=2; compose ps -q app | wc -l
compose down -v -t 1; docker ps -aq --filter label=row=$N; docker network ls -q --filter label=row=$N; docker volume ls -q --filter label=row=$N; cat log >&2`,
		want: "page\n2\n2\nb\npage\n4\nb\nb\nb\nb\nb\nterm\n1\n2"},
}
