// SPDX-License-Identifier: Apache-2.0

// Command interop runs one scenario with the Go client and prints what it saw, a fact a line.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const deadline = 10 * time.Second

func fact(name string, value any) { fmt.Printf("%s=%v\n", name, value) }

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(1)
	}
}

func connect(url string, options ...nats.Option) *nats.Conn {
	nc, err := nats.Connect(url, options...)
	must(err)
	return nc
}

func await(name string, done <-chan struct{}) {
	select {
	case <-done:
	case <-time.After(deadline):
		must(fmt.Errorf("%s: not in time", name))
	}
}

func pubsub(url string) {
	nc := connect(url)
	other := connect(url)
	sub, err := nc.SubscribeSync("news.>")
	must(err)
	must(nc.Flush())
	for i := 0; i < 10000; i++ {
		must(other.Publish(fmt.Sprintf("news.%d", i%7), []byte(fmt.Sprint(i))))
	}
	must(other.Flush())
	for i := 0; i < 10000; i++ {
		msg, err := sub.NextMsg(deadline)
		must(err)
		if string(msg.Data) != fmt.Sprint(i) || msg.Subject != fmt.Sprintf("news.%d", i%7) {
			must(fmt.Errorf("message %d is %s on %s", i, msg.Data, msg.Subject))
		}
	}
	fact("received", 10000)
	must(sub.Unsubscribe())
	must(nc.Flush())
	must(other.Publish("news.1", nil))
	must(other.Flush())
	must(nc.Flush())
	_, err = sub.NextMsg(time.Millisecond)
	fact("after_unsubscribe", errors.Is(err, nats.ErrBadSubscription))
	limited, err := nc.SubscribeSync("few")
	must(err)
	must(limited.AutoUnsubscribe(3))
	must(nc.Flush())
	for i := 0; i < 9; i++ {
		must(other.Publish("few", nil))
	}
	must(other.Flush())
	count := 0
	for {
		if _, err := limited.NextMsg(200 * time.Millisecond); err != nil {
			break
		}
		count++
	}
	fact("limited", count)
	_, err = nc.RTT()
	must(err)
	fact("version", nc.ConnectedServerVersion() != "")
	fact("headers", nc.HeadersSupported())
	nc.Close()
	other.Close()
}

func queue(url string) {
	const members, total = 4, 8000
	var counts [members]int64
	var all sync.WaitGroup
	all.Add(total)
	for i := 0; i < members; i++ {
		i := i
		nc := connect(url)
		_, err := nc.QueueSubscribe("work.*", "q", func(*nats.Msg) {
			atomic.AddInt64(&counts[i], 1)
			all.Done()
		})
		must(err)
		must(nc.Flush())
	}
	nc := connect(url)
	for i := 0; i < total; i++ {
		must(nc.Publish(fmt.Sprintf("work.%d", i%50), nil))
	}
	must(nc.Flush())
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	await("queue", done)
	var sum int64
	idle := 0
	for i := range counts {
		sum += counts[i]
		if counts[i] == 0 {
			idle++
		}
	}
	fact("received", sum)
	fact("idle_members", idle)
}

func request(url string) {
	service := connect(url)
	_, err := service.QueueSubscribe("svc.echo", "svc", func(msg *nats.Msg) {
		reply := nats.NewMsg(msg.Reply)
		reply.Data = msg.Data
		reply.Header["mir-msg"] = []string{"answer"}
		reply.Header["asked"] = msg.Header["mir-msg"]
		must(msg.RespondMsg(reply))
	})
	must(err)
	must(service.Flush())
	nc := connect(url)
	ask := nats.NewMsg("svc.echo")
	ask.Data = []byte("payload")
	ask.Header["mir-msg"] = []string{"first", "second"}
	answer, err := nc.RequestMsg(ask, deadline)
	must(err)
	fact("data", string(answer.Data))
	fact("header", strings.Join(answer.Header["mir-msg"], ","))
	fact("asked", strings.Join(answer.Header["asked"], ","))
	var group sync.WaitGroup
	var good int64
	for i := 0; i < 64; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			for j := 0; j < 50; j++ {
				want := fmt.Sprintf("%d.%d", i, j)
				got, err := nc.Request("svc.echo", []byte(want), deadline)
				if err == nil && string(got.Data) == want {
					atomic.AddInt64(&good, 1)
				}
			}
		}(i)
	}
	group.Wait()
	fact("concurrent", good)

	old := connect(url, nats.UseOldRequestStyle())
	answer, err = old.Request("svc.echo", []byte("old"), deadline)
	must(err)
	fact("old_style", string(answer.Data))
	_, err = old.Request("svc.nobody", nil, deadline)
	fact("old_no_responders", errors.Is(err, nats.ErrNoResponders))

	begin := time.Now()
	_, err = nc.Request("svc.nobody", nil, deadline)
	fact("no_responders", errors.Is(err, nats.ErrNoResponders))
	fact("prompt", time.Since(begin) < time.Second)
	js, err := nc.JetStream()
	must(err)
	_, err = js.AccountInfo()
	fact("jetstream", errors.Is(err, nats.ErrJetStreamNotEnabled))
	_, err = js.KeyValue("bucket")
	fact("kv", err != nil)
	fact("connected", nc.IsConnected())
}

func drain(url string) {
	const total = 2000
	closed := make(chan struct{})
	var got int64
	nc := connect(url, nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	_, err := nc.Subscribe("drain", func(*nats.Msg) {
		if atomic.AddInt64(&got, 1)%100 == 0 {
			time.Sleep(time.Millisecond)
		}
	})
	must(err)
	part, err := nc.Subscribe("part", func(*nats.Msg) {})
	must(err)
	must(nc.Flush())
	other := connect(url)
	for i := 0; i < total; i++ {
		must(other.Publish("drain", nil))
	}
	must(other.Flush())
	must(part.Drain())
	must(nc.Drain())
	await("drain", closed)
	fact("received", atomic.LoadInt64(&got))
	fact("error", nc.LastError())
	_, err = other.Request("drain", nil, deadline)
	fact("gone", errors.Is(err, nats.ErrNoResponders))
}

// limits: max_payload as INFO says, and a body larger than that.
func limits(url string) {
	nc := connect(url)
	fact("max_payload", nc.MaxPayload())
	err := nc.Publish("a", make([]byte, nc.MaxPayload()+1))
	fact("too_large", errors.Is(err, nats.ErrMaxPayload))
	sub, err := nc.SubscribeSync("a")
	must(err)
	must(nc.Publish("a", make([]byte, nc.MaxPayload())))
	msg, err := sub.NextMsg(deadline)
	must(err)
	fact("largest", len(msg.Data))
}

func permissions(url string) {
	var mutex sync.Mutex
	var texts []string
	count := make(chan struct{}, 16)
	nc := connect(url, nats.UserInfo("u", "p"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		mutex.Lock()
		defer mutex.Unlock()
		text := strings.ToLower(err.Error())
		texts = append(texts, text)
		count <- struct{}{}
	}))
	must(nc.Publish("no.publish", nil))
	_, err := nc.SubscribeSync("no.plain")
	must(err)
	_, err = nc.QueueSubscribeSync("no.queued", "work")
	must(err)
	must(nc.Flush())
	for i := 0; i < 3; i++ {
		select {
		case <-count:
		case <-time.After(deadline):
			must(errors.New("permission errors: not in time"))
		}
	}
	mutex.Lock()
	sort.Strings(texts)
	for _, text := range texts {
		fact("text", text)
	}
	mutex.Unlock()
	fact("connected", nc.IsConnected())

	_, err = nats.Connect(url, nats.UserInfo("u", "wrong"))
	fact("wrong_password", errors.Is(err, nats.ErrAuthorization))
	_, err = nats.Connect(url)
	fact("no_password", errors.Is(err, nats.ErrAuthorization))
}

// reconnect talks with the test: it says when it is subscribed, and publishes a line's worth when told.
func reconnect(url string) {
	received := make(chan string, 100)
	disconnected := make(chan struct{}, 100)
	reconnected := make(chan struct{}, 100)
	nc := connect(url,
		nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(10*time.Millisecond, 10*time.Millisecond),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { disconnected <- struct{}{} }),
		nats.ReconnectHandler(func(*nats.Conn) { reconnected <- struct{}{} }))
	_, err := nc.Subscribe("self.>", func(msg *nats.Msg) { received <- string(msg.Data) })
	must(err)
	_, err = nc.QueueSubscribe("queued", "q", func(msg *nats.Msg) { received <- "queued " + string(msg.Data) })
	must(err)
	must(nc.Flush())
	fact("ready", nc.ConnectedUrl() != "")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch word, rest, _ := strings.Cut(lines.Text(), " "); word {
		case "await-reconnect":
			select {
			case <-disconnected:
			case <-time.After(deadline):
				must(errors.New("disconnect: not in time"))
			}
			select {
			case <-reconnected:
			case <-time.After(2 * deadline):
				must(errors.New("reconnect: not in time"))
			}
			fact("reconnected", true)
		case "publish":
			must(nc.Publish("self.x", []byte(rest)))
			must(nc.Publish("queued", []byte(rest)))
			must(nc.FlushTimeout(deadline))
			got := []string{<-received, <-received}
			sort.Strings(got)
			fact("received", strings.Join(got, ","))
		case "end":
			nc.Close()
			return
		}
	}
}

func lameduck(url string) {
	notice := make(chan struct{}, 1)
	nc := connect(url, nats.LameDuckModeHandler(func(*nats.Conn) { notice <- struct{}{} }), nats.NoReconnect())
	fact("ready", nc.IsConnected())
	await("lame duck", notice)
	fact("notice", true)
	fact("connected", nc.IsConnected())
}

// late starts before there is a server.
func late(url string) {
	connected := make(chan struct{}, 1)
	nc, err := nats.Connect(url, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.ReconnectHandler(func(*nats.Conn) { connected <- struct{}{} }))
	must(err)
	fact("ready", !nc.IsConnected())
	sub, err := nc.SubscribeSync("late")
	must(err)
	await("late connect", connected)
	must(nc.FlushTimeout(deadline))
	must(nc.Publish("late", []byte("x")))
	msg, err := sub.NextMsg(deadline)
	must(err)
	fact("received", string(msg.Data))
}

func main() {
	scenarios := map[string]func(string){
		"pubsub": pubsub, "queue": queue, "request": request, "drain": drain, "limits": limits,
		"permissions": permissions, "reconnect": reconnect, "lameduck": lameduck, "late": late,
	}
	if len(os.Args) != 3 || scenarios[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: interop SCENARIO URL")
		os.Exit(2)
	}
	scenarios[os.Args[1]](os.Args[2])
	fact("done", true)
}
