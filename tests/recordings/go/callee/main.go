// A callee (`payments`, `inventory`): an instrumented HTTP server whose faults are set on a second, uninstrumented port.
//
//	callee -addr :22001 -admin :22101
//	PUT /?mode=MODE[&for=INSTANCE] on the admin port, where MODE is one of
//	  ok          answers 200 after some 3 to 25 ms (the default)
//	  500, 503    answers that status
//	  reset       closes the connection without an answer
//	  hang        answers after 5 s, later than the caller waits
//	  slow        answers 200 after 300 to 500 ms
//	  down        does not listen at all (for all instances)
//	`for` limits the mode to callers whose X-Caller header is INSTANCE.
package main

import (
	"context"
	"flag"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"recordings/telemetry"
)

var (
	mu    sync.Mutex
	modes = map[string]string{} // by caller instance; "" for all others
)

func mode(caller string) string {
	mu.Lock()
	defer mu.Unlock()
	if m, ok := modes[caller]; ok {
		return m
	}
	return modes[""]
}

func pause(ctx context.Context, least, most time.Duration) {
	select {
	case <-time.After(least + rand.N(most-least)):
	case <-ctx.Done():
	}
}

func serve(w http.ResponseWriter, r *http.Request) {
	pause(r.Context(), 3*time.Millisecond, 25*time.Millisecond)
	switch m := mode(r.Header.Get("X-Caller")); m {
	case "500", "503":
		status, _ := strconv.Atoi(m)
		http.Error(w, "database unavailable", status)
	case "reset":
		panic(http.ErrAbortHandler)
	case "hang":
		pause(r.Context(), 5*time.Second, 6*time.Second)
	case "slow":
		pause(r.Context(), 300*time.Millisecond, 500*time.Millisecond)
		w.Write([]byte(`{"ok":true}`))
	default:
		w.Write([]byte(`{"ok":true}`))
	}
}

func main() {
	addr := flag.String("addr", "", "address of the service")
	admin := flag.String("admin", "", "address of the fault switch")
	flag.Parse()
	stop := telemetry.Start()

	mux := http.NewServeMux()
	mux.HandleFunc("POST /charges", serve)
	mux.HandleFunc("GET /rates", serve)
	mux.HandleFunc("GET /health", serve)
	mux.HandleFunc("POST /reservations", serve)
	handler := otelhttp.NewHandler(mux, "http")

	var server *http.Server
	listen := func() {
		l, err := net.Listen("tcp", *addr)
		if err != nil {
			log.Fatal(err)
		}
		server = &http.Server{Handler: handler, ErrorLog: log.New(log.Writer(), "", 0)}
		go server.Serve(l)
	}
	listen()
	go http.ListenAndServe(*admin, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		m, caller := r.FormValue("mode"), r.FormValue("for")
		if m == "down" && server != nil {
			server.Close()
			server = nil
		} else if server == nil {
			listen()
		}
		if m == "ok" && caller != "" {
			delete(modes, caller)
		} else {
			modes[caller] = m
		}
	}))

	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
	stop()
}
