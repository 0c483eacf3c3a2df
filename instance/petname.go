package instance

import (
	"fmt"
	"math/rand/v2"

	"github.com/shoal-project/shoal/api"
)

var (
	adjectives = []string{"able", "bold", "brave", "bright", "calm", "clear", "deep", "eager", "fair", "fast", "fine", "fresh", "glad", "grand", "keen", "kind", "light", "mild", "neat", "quick", "quiet", "rapid", "sharp", "smooth", "steady", "still", "swift", "tidy", "warm", "wise"}
	fishes     = []string{"anchovy", "barbel", "bass", "bream", "carp", "char", "cod", "dace", "eel", "flounder", "goby", "grayling", "haddock", "hake", "halibut", "herring", "ling", "mackerel", "minnow", "mullet", "perch", "pike", "plaice", "pollock", "roach", "salmon", "sardine", "shad", "smelt", "sole", "sprat", "sturgeon", "tench", "trout", "tuna", "turbot", "whiting", "zander"}
)

// freeName makes up a name that no instance of the project has.
func (s *Service) freeName(project api.ProjectName) string {
	for try := 0; ; try++ {
		name := adjectives[rand.IntN(len(adjectives))] + "-" + fishes[rand.IntN(len(fishes))]
		if try > 20 {
			name = fmt.Sprintf("%s-%04x", name, rand.IntN(1<<16))
		}
		if n, err := api.ParseInstanceName(name); err == nil && s.entries.get(ref{project, n}) == nil {
			return name
		}
	}
}
