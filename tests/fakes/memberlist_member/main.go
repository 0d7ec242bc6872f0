// Command memberlist_member is a member made with HashiCorp's own library, for tests of the wire: it
// joins, prints an object of JSON for each thing it is told, and leaves when its input ends.
package main

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const leaveTimeout = 5 * time.Second

// line is what is printed: "started", "join", "update", "leave", "refused" and why, or "left".
type line struct {
	Event   string `json:"event"`
	Member  string `json:"member,omitempty"`
	Address string `json:"address,omitempty"`
	Meta    string `json:"meta,omitempty"`
	Error   string `json:"error,omitempty"`
}

var output sync.Mutex

func say(what line) {
	output.Lock()
	defer output.Unlock()
	text, _ := json.Marshal(what)
	fmt.Println(string(text))
}

type events struct{}

func (events) say(event string, node *memberlist.Node) {
	say(line{
		Event:   event,
		Member:  node.Name,
		Address: net.JoinHostPort(node.Addr.String(), strconv.Itoa(int(node.Port))),
		Meta:    base64.StdEncoding.EncodeToString(node.Meta),
	})
}

func (e events) NotifyJoin(node *memberlist.Node)   { e.say("join", node) }
func (e events) NotifyLeave(node *memberlist.Node)  { e.say("leave", node) }
func (e events) NotifyUpdate(node *memberlist.Node) { e.say("update", node) }

// delegate stands where Serf would, and has nothing to say but the member's tags.
type delegate struct{ meta []byte }

func (d delegate) NodeMeta(int) []byte           { return d.meta }
func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}

func main() {
	config := memberlist.DefaultLocalConfig()
	config.LogOutput = io.Discard
	config.Events = events{}
	// Twice, as it is by default, the news that a member leaves is lost with two that are gone.
	config.RetransmitMult = memberlist.DefaultLANConfig().RetransmitMult
	var meta, key string
	var protocol, layer, layers int
	flag.StringVar(&config.Name, "name", "", "unique among the members")
	flag.StringVar(&config.BindAddr, "host", "127.0.0.1", "where it listens")
	flag.IntVar(&config.BindPort, "port", 0, "where it listens")
	flag.StringVar(&config.Label, "label", "", "in front of all that it sends")
	flag.BoolVar(&config.EnableCompression, "compress", false, "whether it compresses what it sends")
	flag.StringVar(&key, "key", "", "what encrypts all that it sends, in base64")
	flag.StringVar(&meta, "meta", "", "what it says of itself, in base64")
	flag.IntVar(&protocol, "protocol", memberlist.ProtocolVersion2Compatible, "the version it speaks")
	flag.IntVar(&layer, "layer", 4, "the version of Serf that it speaks")
	flag.IntVar(&layers, "layers", 5, "the highest version of Serf that it understands")
	join := flag.String("join", "", "HOST:PORT of a member")
	flag.Parse()

	config.AdvertisePort = config.BindPort
	config.ProtocolVersion = uint8(protocol)
	config.DelegateProtocolMin = min(2, uint8(layer))
	config.DelegateProtocolVersion = uint8(layer)
	config.DelegateProtocolMax = uint8(layers)
	config.SecretKey = bytesOf(key)
	config.Delegate = delegate{bytesOf(meta)}

	members, err := memberlist.Create(config)
	if err != nil {
		fail(err)
	}
	say(line{Event: "started", Member: config.Name})
	if _, err := members.Join([]string{*join}); err != nil {
		fail(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := members.Leave(leaveTimeout); err != nil {
		fail(err)
	}
	say(line{Event: "left"})
}

func bytesOf(text string) []byte {
	value, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		fail(err)
	}
	return value
}

func fail(err error) {
	say(line{Event: "refused", Error: err.Error()})
	os.Exit(1)
}
