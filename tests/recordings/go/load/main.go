// The load: requests with exponential gaps, and the faults of a scenario at their times. Not instrumented.
//
//	load -phases scenarios/NAME.txt -mix "POST /order=5,GET /quote=2" -admin payments=URL,inventory=URL URL=RATE...
//
// A line of the phases is `SECONDS CALLEE MODE [INSTANCE]`, `SECONDS rate FACTOR` or `SECONDS end`; # begins a comment.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

var factor atomic.Uint64 // of the rate, as float64 bits

type request struct {
	method, path string
	weight       float64
}

func pairs(s string) (out [][2]string) {
	for _, p := range strings.Split(s, ",") {
		if k, v, ok := strings.Cut(p, "="); ok {
			out = append(out, [2]string{k, v})
		}
	}
	return
}

func number(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		log.Fatal(err)
	}
	return f
}

func send(client *http.Client, method, url string) {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		log.Print(err)
		return
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

func drive(base string, rate float64, mix []request) {
	client := &http.Client{Timeout: 20 * time.Second}
	total := 0.0
	for _, r := range mix {
		total += r.weight
	}
	next := time.Now()
	for {
		f := math.Float64frombits(factor.Load())
		if f <= 0 {
			time.Sleep(100 * time.Millisecond)
			next = time.Now()
			continue
		}
		next = next.Add(time.Duration(rand.ExpFloat64() / (rate * f) * 1e9))
		time.Sleep(time.Until(next))
		pick := rand.Float64() * total
		for _, r := range mix {
			if pick -= r.weight; pick < 0 {
				go send(client, r.method, base+r.path)
				break
			}
		}
	}
}

func main() {
	phases := flag.String("phases", "", "file of the faults")
	mixed := flag.String("mix", "POST /order=1", "requests and their weights")
	admins := flag.String("admin", "", "fault switches of the callees")
	flag.Parse()
	factor.Store(math.Float64bits(1))
	var mix []request
	for _, p := range pairs(*mixed) {
		method, path, _ := strings.Cut(p[0], " ")
		mix = append(mix, request{method, path, number(p[1])})
	}
	admin := map[string]string{}
	for _, p := range pairs(*admins) {
		admin[p[0]] = p[1]
	}
	for _, target := range flag.Args() {
		base, rate, _ := strings.Cut(target, "=")
		go drive(base, number(rate), mix)
	}
	file, err := os.Open(*phases)
	if err != nil {
		log.Fatal(err)
	}
	begin := time.Now()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		time.Sleep(time.Until(begin.Add(time.Duration(number(f[0]) * 1e9))))
		switch {
		case f[1] == "end":
			return
		case f[1] == "rate":
			factor.Store(math.Float64bits(number(f[2])))
		default:
			url := fmt.Sprintf("%s/?mode=%s", admin[f[1]], f[2])
			if len(f) > 3 {
				url += "&for=" + f[3]
			}
			send(http.DefaultClient, http.MethodPut, url)
		}
	}
}
