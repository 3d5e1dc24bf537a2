// A reservation as one would write it in Go: gin, a redigo pool, one EVALSHA of reserve_one.lua.
// Believes the buyer's name in X-User: it checks no token.
//
//	peer PORT REDIS_SOCKET RESERVE_ONE_LUA
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gomodule/redigo/redis"
)

const poolMax = 64 // Connections to Redis; more cost the same.

type item struct {
	SKU      string `json:"sku" binding:"required"`
	Quantity int    `json:"quantity" binding:"required,min=1"`
}

type body struct {
	Items []item `json:"items" binding:"required,min=1,max=1,dive"`
}

type reservation struct {
	ReservationID string `json:"reservation_id"`
	SaleID        string `json:"sale_id"`
	Items         []item `json:"items"`
	Status        string `json:"status"`
	ReservedUntil string `json:"reserved_until"`
}

type shop struct {
	pool   *redis.Pool
	script *redis.Script
}

func main() {
	port, socket, path := os.Args[1], os.Args[2], os.Args[3]
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	shop := &shop{
		pool: &redis.Pool{
			MaxIdle: poolMax, MaxActive: poolMax, Wait: true,
			Dial: func() (redis.Conn, error) { return redis.Dial("unix", socket) },
		},
		script: redis.NewScript(4, string(text)),
	}
	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.POST("/v1/sales/:sale/reservations", shop.reserve)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, router))
}

func (s *shop) reserve(c *gin.Context) {
	var wanted body
	sale, user, key := c.Param("sale"), c.GetHeader("X-User"), c.GetHeader("Idempotency-Key")
	if err := c.ShouldBindJSON(&wanted); err != nil || user == "" || key == "" {
		c.JSON(http.StatusBadRequest, gin.H{"code": "invalid_request"})
		return
	}
	sum := sha256.Sum256([]byte(user + "/" + key))
	id := hex.EncodeToString(sum[:])[:20]
	until, outcome, err := s.askRedis(sale, user, id, wanted.Items[0])
	if err != nil {
		log.Print(err)
		c.JSON(http.StatusServiceUnavailable, gin.H{"code": "unavailable"})
		return
	}
	replayed := strings.HasPrefix(outcome, "DUPLICATE")
	if outcome != "RESERVED" && !replayed {
		c.JSON(http.StatusConflict, gin.H{"code": outcome})
		return
	}
	status := http.StatusCreated
	if replayed {
		status = http.StatusOK
	}
	name := sale + "." + id
	c.Header("Location", "/v1/reservations/"+name)
	c.JSON(status, reservation{name, sale, wanted.Items, "reserved",
		time.Unix(until, 0).UTC().Format(time.RFC3339)})
}

// askRedis says until when the reservation holds, and the outcome.
func (s *shop) askRedis(sale, user, id string, wanted item) (int64, string, error) {
	connection := s.pool.Get()
	defer connection.Close()
	tag := "sale:{" + sale + ".0}:"
	reply, err := redis.Strings(s.script.Do(connection,
		tag+"config", tag+"stock", tag+"buyers", tag+"orders",
		1, time.Now().UnixMilli(), user, id, wanted.SKU+"*"+strconv.Itoa(wanted.Quantity)))
	if err != nil {
		return 0, "", err
	}
	until, err := strconv.ParseInt(reply[0], 10, 64)
	return until, reply[1], err
}
