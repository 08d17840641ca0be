package trial

import (
	"regexp"
	"strings"
)

// ByAge matches a reference to a sweep by its age, perhaps among those of one name:
// @, @2, NAME@ and NAME@2.
var ByAge = regexp.MustCompile(`^(.*)@([1-9][0-9]{0,8})?$`)

// UnfitName returns why a new sweep, or one that is renamed, cannot have a name; "" where
// it can. A name that reads as an id or as a reference by age would hide the sweep which
// is meant. Names from before this rule stay.
func UnfitName(name string) string {
	switch {
	case strings.HasPrefix(name, "s-"):
		return "it begins with s-, as the ids of sweeps do"
	case ByAge.MatchString(name):
		return "it ends with @ or @NUMBER, which refers to a sweep by its age"
	}
	return ""
}

// ValidAlias reports whether a name may be an alias: [a-z0-9][a-z0-9._-]{0,63}, and not
// what the id of a sweep looks like.
func ValidAlias(name string) bool {
	if len(name) < 1 || len(name) > 64 || name[0] == '.' || name[0] == '-' || name[0] == '_' || len(name) > 1 && name[:2] == "s-" {
		return false
	}
	for _, b := range []byte(name) {
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '-' && b != '.' && b != '_' {
			return false
		}
	}
	return true
}
